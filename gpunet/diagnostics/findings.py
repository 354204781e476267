"""What looks wrong in a diagnosis, by stated thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpunet.diagnostics.distribution import or_none
from gpunet.diagnostics.records import LayerDiagnosis, ParameterDiagnosis

_MOST_AS_PER_CENT = 10


@dataclass(frozen=True)
class Thresholds:
    """From where on something is worth a warning.

    Attributes
    ----------
    dead : float
        Share of a hidden layer's units.
    saturated : float
        Share of a hidden layer's activations.
    faded_outputs : float
        Standard deviation of a hidden layer's activations over that of the first hidden layer.
    faded_gradients, grown_gradients : float
        Root mean square of dJ/ds in a hidden layer over that in the last hidden layer.
    large_update : float
        ||change|| / ||W|| of one update.
    """

    dead: float = 0.25
    saturated: float = 0.5
    faded_outputs: float = 1e-3
    faded_gradients: float = 1e-3
    grown_gradients: float = 1e3
    large_update: float = 0.1


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong; ``str`` gives it as a line.

    Attributes
    ----------
    kind : str
        ``"not_finite"``, ``"dead"``, ``"saturated"``, ``"faded_outputs"``, ``"no_gradient"``, ``"faded_gradients"``,
        ``"grown_gradients"`` or ``"large_update"``.
    layer : int
    value : float
        What was found; compare it with the threshold.
    message : str
    """

    kind: str
    layer: int
    value: float
    message: str

    def __str__(self) -> str:
        return f"layer {self.layer}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; a value that is not finite becomes null."""
        return asdict(self) | {"value": or_none(self.value)}


def find(
    layers: Sequence[LayerDiagnosis], parameters: Mapping[str, ParameterDiagnosis], thresholds: Thresholds
) -> list[Finding]:
    """Return the findings, the first layer first."""
    return [
        Finding(kind, layer.index, value, message)
        for layer in layers
        for kind, value, message in _of_layer(layers, layer, parameters[f"W{layer.index}"], thresholds)
    ]


def _of_layer(
    layers: Sequence[LayerDiagnosis], layer: LayerDiagnosis, weights: ParameterDiagnosis, thresholds: Thresholds
) -> Iterator[tuple[str, float, str]]:
    """Yield kind, value and message of each finding."""
    lost = layer.outputs.non_finite + layer.score_gradients.non_finite + weights.gradients.non_finite
    if lost:
        # Everything else would only follow from it.
        yield "not_finite", lost, f"{lost:,} activations or gradients are NaN or infinite"
        return
    if not layer.is_output:
        yield from _of_units(layers[0], layer, thresholds)
    if _is_unreached(layers, layer, weights):
        yield "no_gradient", 0.0, f"the loss gives {weights.name} no gradient: it does not learn"
    elif not layer.is_output:
        last_hidden = layers[-2]
        last = last_hidden.score_gradients.root_mean_square
        ratio = layer.score_gradients.root_mean_square / last if last else 1.0
        relative = f"{ratio:.1e} times those of layer {last_hidden.index}"
        if ratio < thresholds.faded_gradients:
            yield "faded_gradients", ratio, f"the gradients have faded to {relative}"
        if ratio > thresholds.grown_gradients:
            yield "grown_gradients", ratio, f"the gradients have grown to {relative}"
    if weights.update_ratio is not None and weights.update_ratio > thresholds.large_update:
        ratio = weights.update_ratio
        share = f"{100 * ratio:.0f} % of" if ratio < _MOST_AS_PER_CENT else f"{ratio:.1e} times"
        yield "large_update", ratio, f"one update changes {weights.name} by {share} its norm"


def _is_unreached(layers: Sequence[LayerDiagnosis], layer: LayerDiagnosis, weights: ParameterDiagnosis) -> bool:
    """Say whether the loss gives a layer's weights no gradient, whatever their L2 term gives them."""
    inputs = layers[layer.index - 2].outputs if layer.index > 1 else None
    return (
        layer.score_gradients.root_mean_square == 0
        or (inputs is not None and inputs.root_mean_square == 0)
        or weights.gradient_norm == 0
    )


def _of_units(first: LayerDiagnosis, layer: LayerDiagnosis, thresholds: Thresholds) -> Iterator[tuple[str, float, str]]:
    if layer.dead_share >= thresholds.dead:
        yield "dead", layer.dead_share, f"{100 * layer.dead_share:.0f} % dead units"
    if layer.saturated is not None and layer.saturated >= thresholds.saturated:
        yield "saturated", layer.saturated, f"{100 * layer.saturated:.0f} % of the activations are saturated"
    ratio = layer.outputs.std / first.outputs.std if first.outputs.std else 1.0
    if ratio < thresholds.faded_outputs:
        yield "faded_outputs", ratio, f"the activations have faded to {ratio:.1e} times those of layer 1"

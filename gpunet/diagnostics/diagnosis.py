"""What an inspection found: a record per layer and per parameter, as objects, JSON or a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunet.diagnostics.distribution import Distribution, or_none
from gpunet.diagnostics.findings import Finding, Thresholds, find

COLUMNS = (
    "layer",
    "units",
    "activation",
    "mean",
    "std",
    "saturated",
    "dead units",
    "std of dJ/ds",
    "||dJ/dW||",
    "update",
)


@dataclass(frozen=True)
class LayerDiagnosis:
    """One linear layer with its activation, on the rows of an inspection.

    Attributes
    ----------
    index : int
        i, from 1.
    units : int
    activation : str
    batch_norm : bool
    is_output : bool
        Whether it is the last layer.
    outputs : Distribution
        Of x_i = f_i(...), over rows and units, before dropout.
    score_gradients : Distribution
        Of dJ/ds_i with s_i = W_i x_{i-1}, over rows and units. J is a mean over the rows, so these are of order 1/n.
    saturated : float or None
        Share of the activations, over rows and units, where f' is below 4 f'_sigmoid(5) = 2.7 % of its largest value:
        abs(s) > 5 for the sigmoid, abs(s) > 2.5 for tanh, s < -3.6 for ELU. None for functions made of straight lines.
    dead : tuple of int
        Units, from 0, whose f' is exactly 0 for every row: no gradient changes their weights.
    """

    index: int
    units: int
    activation: str
    batch_norm: bool
    is_output: bool
    outputs: Distribution
    score_gradients: Distribution
    saturated: float | None
    dead: tuple[int, ...]

    @property
    def dead_share(self) -> float:
        """Dead units over all units."""
        return len(self.dead) / self.units

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "index": self.index,
            "units": self.units,
            "activation": self.activation,
            "batch_norm": self.batch_norm,
            "is_output": self.is_output,
            "outputs": self.outputs.to_dict(),
            "score_gradients": self.score_gradients.to_dict(),
            "saturated": self.saturated,
            "dead": list(self.dead),
        }


@dataclass(frozen=True)
class ParameterDiagnosis:
    """One parameter and its gradient.

    Attributes
    ----------
    name : str
        ``"W1"``, ``"b1"``, ``"gamma1"``, ...
    norm, gradient_norm : float
        Euclidean; the gradient is that of J with its L2 term.
    gradients : Distribution
    update_ratio : float or None
        ||change|| / ||value before|| of one update, where the parameters before it are known and not 0. About 1e-3 is
        usual for weights.
    """

    name: str
    norm: float
    gradient_norm: float
    gradients: Distribution
    update_ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        numbers = {name: or_none(getattr(self, name)) for name in ("norm", "gradient_norm", "update_ratio")}
        return {"name": self.name, **numbers, "gradients": self.gradients.to_dict()}


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`gpunet.diagnostics.inspect` found.

    Attributes
    ----------
    rows : int
        Examples looked at.
    steps : int
        Updates that the network had seen.
    epoch : int or None
        Where a callback made it: 0 before the first.
    loss : float
        J with its L2 term, in training mode.
    layers : tuple of LayerDiagnosis
        The first layer first.
    parameters : dict of str to ParameterDiagnosis
    """

    rows: int
    steps: int
    epoch: int | None
    loss: float
    layers: tuple[LayerDiagnosis, ...]
    parameters: dict[str, ParameterDiagnosis]

    @property
    def hidden(self) -> tuple[LayerDiagnosis, ...]:
        """The layers but the last."""
        return self.layers[:-1]

    def findings(self, thresholds: Thresholds | None = None) -> list[Finding]:
        """Return what looks wrong, the first layer first; empty where nothing does."""
        return find(self, Thresholds() if thresholds is None else thresholds)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; numbers that are not finite become null."""
        return {
            "rows": self.rows,
            "steps": self.steps,
            "epoch": self.epoch,
            "loss": or_none(self.loss),
            "layers": [layer.to_dict() for layer in self.layers],
            "parameters": [parameter.to_dict() for parameter in self.parameters.values()],
            "findings": [finding.to_dict() for finding in self.findings()],
        }

    def table(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Return the names of the columns, and a row of text for each layer."""
        return COLUMNS, [self._row(layer) for layer in self.layers]

    def _row(self, layer: LayerDiagnosis) -> list[str]:
        weights = self.parameters[f"W{layer.index}"]
        return [
            str(layer.index),
            str(layer.units),
            layer.activation + (" after batch norm" if layer.batch_norm else ""),
            f"{layer.outputs.mean:.2g}",
            f"{layer.outputs.std:.2g}",
            "" if layer.saturated is None else f"{layer.saturated:.0%}",
            f"{layer.dead_share:.0%}",
            f"{layer.score_gradients.std:.2g}",
            f"{weights.gradient_norm:.2g}",
            "" if weights.update_ratio is None else f"{weights.update_ratio:.2g}",
        ]

"""What an inspection found, as objects, JSON or a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunet.diagnostics.distribution import or_none
from gpunet.diagnostics.findings import Finding, Thresholds, find
from gpunet.diagnostics.records import LayerDiagnosis, ParameterDiagnosis

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
        return find(self.layers, self.parameters, Thresholds() if thresholds is None else thresholds)

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

"""What an inspection records of one layer, and of one parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunet.diagnostics.distribution import Distribution, or_none


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
        nested = {"outputs": self.outputs.to_dict(), "score_gradients": self.score_gradients.to_dict()}
        return vars(self) | nested | {"dead": list(self.dead)}


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

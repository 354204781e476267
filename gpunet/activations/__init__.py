"""Activation functions (lecture row L3): everything that is known about each, in one class.

A layer keeps what the derivative is a function of: for most the *output* y, so that one array serves instead of two and
the backward pass sees exactly the branch that the forward pass took (``y > 0`` where ``s > 0``); for the others the
input s.

References
----------
Maas, Hannun, Ng 2013 (leaky ReLU); Clevert, Unterthiner, Hochreiter 2015 (ELU); the others at their classes.
"""

from typing import Any

from gpunet.activations.activation import CHECKED_POINTS, Activation, OwnActivation
from gpunet.activations.gated import GELU, GELUTanh, HardSwish, Mish, SiLU
from gpunet.activations.onnx_graph import OnnxGraph
from gpunet.activations.rectifiers import ELU, SELU, LeakyReLU, ReLU, Softplus
from gpunet.activations.squashing import HardSigmoid, HardTanh, Identity, Sigmoid, Tanh
from gpunet.errors import InvalidTypeError, InvalidValueError, unknown_name
from gpunet.specification import split_name

__all__ = [
    "ACTIVATIONS",
    "CHECKED_POINTS",
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "GELUTanh",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "Identity",
    "LeakyReLU",
    "Mish",
    "OnnxGraph",
    "OwnActivation",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "get_activation",
]

ACTIVATIONS: dict[str, type[Activation]] = {
    kind.name: kind
    for kind in (
        Identity,
        Sigmoid,
        Tanh,
        ReLU,
        LeakyReLU,
        ELU,
        SELU,
        Softplus,
        GELU,
        GELUTanh,
        SiLU,
        Mish,
        HardSigmoid,
        HardTanh,
        HardSwish,
    )
}


def get_activation(activation: str | Activation, argument: str = "activation") -> Activation:
    """Return the activation that a name stands for: ``"relu"``, ``"leaky_relu(0.1)"``, ``"elu(0.5)"``.

    Parameters
    ----------
    activation : str or Activation
        An :class:`Activation` is returned as it is.
    argument : str
        The name that error messages give the argument.

    Raises
    ------
    InvalidValueError
        The name is unknown (the message has the nearest valid one), its number is out of range, or an activation of the
        user's own has the name of one of gpunet's.
    InvalidTypeError
        Neither a string nor an :class:`Activation`.
    """
    if isinstance(activation, Activation):
        if type(activation) is not ACTIVATIONS.get(activation.name, type(activation)):
            raise InvalidValueError(f"{argument}: {activation.name!r} is one of gpunet's own. Expected another name.")
        return activation
    if not isinstance(activation, str):
        raise InvalidTypeError(f"{argument}: got {type(activation).__name__}. Expected a name or an Activation.")
    name, number = split_name(argument, activation)
    if name not in ACTIVATIONS:
        raise unknown_name(argument, activation, ACTIVATIONS)
    kind: type[Any] = ACTIVATIONS[name]
    if number is None:
        return kind()
    if not kind.takes_number:
        raise InvalidValueError(f"{argument}: {name!r} takes no number, got {activation!r}.")
    return kind(number)

"""One file per layer, forward and backward side by side."""

from gpunet.errors import InvalidTypeError, InvalidValueError, shown, unknown_name
from gpunet.layers.activation import BiasActivation
from gpunet.layers.base import Layer, Memory, ParameterSpec, Workspace
from gpunet.layers.batch_norm import BatchNorm
from gpunet.layers.dropout import Dropout
from gpunet.layers.huber import Huber
from gpunet.layers.linear import Linear
from gpunet.layers.loss import Loss
from gpunet.layers.quantile import Quantile
from gpunet.layers.sigmoid_cross_entropy import SigmoidCrossEntropy
from gpunet.layers.softmax_cross_entropy import SoftmaxCrossEntropy
from gpunet.layers.squared_error import SquaredError
from gpunet.specification import split_numbers

LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (SoftmaxCrossEntropy, SigmoidCrossEntropy, SquaredError, Huber, Quantile)
}

__all__ = [
    "LOSSES",
    "BatchNorm",
    "BiasActivation",
    "Dropout",
    "Huber",
    "Layer",
    "Linear",
    "Loss",
    "Memory",
    "ParameterSpec",
    "Quantile",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "Workspace",
    "get_loss",
]


def get_loss(loss: str | Loss) -> Loss:
    """Return a loss of its own for one network: ``"squared_error"``, ``"huber(0.5)"``, ``"quantile(0.1, 0.5, 0.9)"``.

    Parameters
    ----------
    loss : str or Loss
        A name, or one that says the numbers.

    Raises
    ------
    InvalidValueError
        The name is unknown (the message has the nearest valid one), or a number is out of range.
    InvalidTypeError
        Neither a string nor one of gpunet's losses.
    """
    if isinstance(loss, Loss) and LOSSES.get(loss.name) is type(loss):
        return type(loss)(*loss.numbers)
    if not isinstance(loss, str):
        raise InvalidTypeError(f"loss: got {shown(loss)}. Expected one of: {', '.join(sorted(LOSSES))}.")
    name, numbers = split_numbers("loss", loss)
    if name not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    kind = LOSSES[name]
    if len(numbers) > kind.most_numbers:
        most = "no number" if not kind.most_numbers else "one number"
        raise InvalidValueError(f"loss: {name!r} takes {most}, got {loss!r}.")
    return kind(*numbers)

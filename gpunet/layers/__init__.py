"""One file per layer, forward and backward side by side."""

from gpunet.errors import InvalidTypeError, InvalidValueError, shown, unknown_name
from gpunet.layers.activation import BiasActivation
from gpunet.layers.base import Layer, Memory, ParameterSpec, Workspace
from gpunet.layers.batch_norm import BatchNorm
from gpunet.layers.custom_loss import CustomLoss
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
    "CustomLoss",
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
        A name, one that says the numbers, or one of the user's own.

    Raises
    ------
    InvalidValueError
        The name is unknown (the message has the nearest valid one), a number is out of range, or a loss of the user's
        own has the name of one of gpunet's.
    InvalidTypeError
        Neither a string, nor one of gpunet's losses, nor a :class:`CustomLoss`.
    """
    if isinstance(loss, CustomLoss) and loss.name in LOSSES:
        raise InvalidValueError(f"loss: {loss.name!r} is one of gpunet's own. Expected another name.")
    if isinstance(loss, Loss) and type(loss) in (CustomLoss, *LOSSES.values()):
        return loss.unbound()
    if not isinstance(loss, str):
        raise InvalidTypeError(
            f"loss: got {shown(loss)}. Expected one of: {', '.join(sorted(LOSSES))}; or a gpunet.CustomLoss."
        )
    name, numbers = split_numbers("loss", loss)
    if name not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    kind = LOSSES[name]
    if len(numbers) > kind.most_numbers:
        most = "no number" if not kind.most_numbers else "one number"
        raise InvalidValueError(f"loss: {name!r} takes {most}, got {loss!r}.")
    return kind(*numbers)

"""Files that hold a network: what their header says, and the network read back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from gpunet.activations import ACTIVATIONS, Activation, get_activation
from gpunet.backends.selection import check_device
from gpunet.errors import FileFormatError, InvalidTypeError, InvalidValueError, shown
from gpunet.layer_stack import LARGEST_STEP
from gpunet.layers import LOSSES, CustomLoss
from gpunet.mixed_precision import LossScale
from gpunet.network import ADDED_ARGUMENTS, FORMAT, FORMAT_VERSION, EmptyNetwork, Network
from gpunet.serialization import StoredTensors, open_tensors
from gpunet.specification import split_name, split_numbers
from gpunet.validation import check_integer, check_json


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    activations: Sequence[Activation] = (),
    loss: CustomLoss | None = None,
) -> Network:
    """Read a network that :meth:`Network.save` or ``gpunet train`` wrote.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors`` or ``.npz``.
    device : str
        Where it is to run; see :class:`Network`.
    activations : sequence of Activation
        Those of the user's own that the network has: the file holds their names, not their functions.
    loss : CustomLoss or None
        The one of the user's own that the network has, likewise.

    Returns
    -------
    Network
        Predicts what the saved one does, and trains on as it would.

    Raises
    ------
    MissingFileError
        There is no such file.
    FileFormatError
        The file is damaged, or holds something else.
    InvalidValueError
        There is no such device; or the network has an activation that is neither gpunet's own nor one of
        ``activations``; or a loss that is neither gpunet's own nor ``loss``.
    InvalidTypeError
        ``device``, ``activations`` or ``loss`` are something else.
    DeviceError
        The device cannot be used.
    """
    check_device(device)
    if not isinstance(activations, Sequence) or not all(isinstance(one, Activation) for one in activations):
        raise InvalidTypeError(f"activations: got {shown(activations)}. Expected a list of gpunet.Activation objects.")
    if not isinstance(loss, CustomLoss | None):
        raise InvalidTypeError(f"loss: got {shown(loss)}. Expected a gpunet.CustomLoss, or None.")
    given = {str(get_activation(activation, "activations")): activation for activation in activations}
    with open_tensors(path) as stored:
        network, steps, metadata, loss_scale = _described(path, stored, device, given, loss)
        tensors = stored.read(network.shapes)
    try:
        return network.filled(network.check_values(tensors), steps, metadata, loss_scale)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"path: {str(path)!r} does not hold a network ({error}).") from None


def _described(
    path: str | os.PathLike[str],
    stored: StoredTensors,
    device: str,
    given: Mapping[str, Activation],
    loss: CustomLoss | None,
) -> tuple[EmptyNetwork, int, dict[str, Any], dict[str, Any] | None]:
    """Return the network that a file's header describes, without its parameters; its steps, metadata, loss scale."""
    header = stored.header
    if header.get("format") != FORMAT:
        raise FileFormatError(f"path: {str(path)!r} holds {header.get('format')!r}. Expected {FORMAT!r}.")
    if header.get("version") != FORMAT_VERSION:
        raise FileFormatError(
            f"path: {str(path)!r} has format version {header.get('version')!r}. Expected {FORMAT_VERSION}."
        )
    try:
        steps = check_integer("steps", header["steps"], 0, LARGEST_STEP)
        metadata = check_json("metadata", header["metadata"])
        loss_scale = header.get("loss_scale")
        if loss_scale is not None:
            LossScale.check(loss_scale)
        missing = [name for name in own_activations(header["network"]) if name not in given]
        own = own_loss(header["network"])
        if not missing and own == (None if loss is None else loss.name):
            return described_network(header["network"], stored, device, given, loss), steps, metadata, loss_scale
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"path: {str(path)!r} does not describe a network ({error}).") from None
    if not missing:
        which = repr(header["network"]["loss"]) + (", one of gpunet's own" if own is None else "")
        expected = "None" if own is None else "the gpunet.CustomLoss of that name"
        raise InvalidValueError(
            f"loss: the network in {str(path)!r} has the loss {which}. Expected {expected}, got {loss}."
        )
    raise InvalidValueError(
        f"activations: the network in {str(path)!r} has the activation {missing[0]!r}, which is none of gpunet's own. "
        f"Expected the activation of that name among activations=(...), got {', '.join(given) or 'none'}."
    )


def own_activations(configuration: Mapping[str, Any]) -> list[str]:
    """Return the names of the activations that are not gpunet's own, each once.

    Raises
    ------
    InvalidTypeError, InvalidValueError, TypeError, KeyError
        These are not the arguments of a network.
    """
    hidden, output = _activation_names(configuration)
    own: dict[str, None] = {}
    for argument, names in (
        ("activation", [hidden] if isinstance(hidden, str) else hidden),
        ("output_activation", [output]),
    ):
        for name in names:
            if not isinstance(name, str):
                raise InvalidTypeError(f"{argument}: got {shown(name)}. Expected a name.")
            if split_name(argument, name)[0] not in ACTIVATIONS:
                own[name] = None
    return list(own)


def own_loss(configuration: Mapping[str, Any]) -> str | None:
    """Return the name of a loss that is not gpunet's own; None where it is.

    Raises
    ------
    InvalidTypeError, InvalidValueError, KeyError
        These are not the arguments of a network.
    """
    name = configuration["loss"]
    if not isinstance(name, str):
        raise InvalidTypeError(f"loss: got {shown(name)}. Expected a name.")
    return None if split_numbers("loss", name)[0] in LOSSES else name


def described_network(
    configuration: Mapping[str, Any],
    stored: StoredTensors,
    device: str,
    given: Mapping[str, Activation],
    loss: CustomLoss | None,
) -> EmptyNetwork:
    """Return a network without its parameters, of which a file must have as many as there are layers.

    Parameters
    ----------
    configuration : mapping
        The arguments of the network, as a header has them.
    stored : StoredTensors
        The file.
    device : str
    given : mapping of str to Activation
        What the names of :func:`own_activations` stand for.
    loss : CustomLoss or None
        What the name of :func:`own_loss` stands for.

    Raises
    ------
    InvalidTypeError, InvalidValueError, TypeError, KeyError
        These are not the arguments of a network.
    """
    if len(configuration["layer_sizes"]) > len(stored.shapes) + 1:
        raise InvalidValueError("layer_sizes: more layers than tensors")
    hidden, output = _activation_names(configuration)
    arguments = {
        **configuration,
        "activation": given.get(hidden, hidden) if isinstance(hidden, str) else [given.get(one, one) for one in hidden],
        "output_activation": given.get(output, output),
        "loss": configuration["loss"] if loss is None else loss,
    }
    return EmptyNetwork(**arguments, device=device)


def _activation_names(configuration: Mapping[str, Any]) -> tuple[str | list[str], str]:
    """Return the name of all hidden activations or the list of them, and that of the output."""
    arguments = {**ADDED_ARGUMENTS, **configuration}
    return arguments["activation"], arguments["output_activation"]

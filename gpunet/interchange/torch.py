"""PyTorch: a network as a ``torch.nn.Sequential``, and back."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import ACTIVATIONS, Activation, Identity
from gpunet.backends import Backend
from gpunet.errors import InvalidTypeError, InvalidValueError, optional_package, shown
from gpunet.network import Network, on_network

Array = npt.NDArray[Any]


@on_network
def to_torch(network: Network) -> Any:
    """Return a network as a PyTorch module with the same outputs: logits, or the numbers of a regression.

    Its parts are called ``linear1``, ``batch_norm1``, ``activation1``, ``dropout1``, ..., and so are the entries of its
    ``state_dict()``: ``linear1.weight`` is W1, ``batch_norm1.weight`` gamma1, ``batch_norm1.bias`` beta1. The loss is
    not a part of it. The module is on the CPU, in evaluation mode, and shares no memory with the network.

    Parameters
    ----------
    network : Network

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    InvalidValueError
        An activation is the user's own.
    """
    with optional_package("torch", extra="oracle", purpose="a PyTorch module"):
        import torch
        from torch import nn

    values = network.get_parameters() | network.get_state()
    modules: OrderedDict[str, Any] = OrderedDict()
    dtype = getattr(torch, network.dtype.name)
    hidden = len(network.layer_sizes) - 2
    for number in range(1, hidden + 2):
        W, b = values[f"W{number}"], values.get(f"b{number}")
        linear = nn.Linear(W.shape[1], W.shape[0], bias=b is not None, dtype=dtype)
        tensors = {"weight": W} if b is None else {"weight": W, "bias": b}
        modules[f"linear{number}"] = _filled(torch, linear, tensors)
        activation = network.output_activation if number > hidden else network.activations[number - 1]
        if number <= hidden and network.batch_norm[number - 1]:
            norm = nn.BatchNorm1d(
                len(W),
                eps=network.batch_norm_epsilon,
                momentum=network.configuration["batch_norm_momentum"],
                affine=network.scale_shift,
                dtype=dtype,
            )
            names = {"running_mean": "running_mean", "running_var": "running_variance"}
            names |= {"weight": "gamma", "bias": "beta"} if network.scale_shift else {}
            tensors = {theirs: values[f"{ours}{number}"] for theirs, ours in names.items()}
            modules[f"batch_norm{number}"] = _filled(torch, norm, tensors | {"num_batches_tracked": network.steps})
        if number <= hidden or not isinstance(activation, Identity):
            modules[f"activation{number}"] = _module(nn, activation)
        if number <= hidden and network.configuration["dropout"][number - 1] > 0:
            modules[f"dropout{number}"] = nn.Dropout(network.configuration["dropout"][number - 1])
    return nn.Sequential(modules).eval()


def _filled(torch: Any, module: Any, tensors: dict[str, Any]) -> Any:
    module.load_state_dict({name: torch.tensor(values) for name, values in tensors.items()})
    return module


def _module(nn: Any, activation: Activation) -> Any:
    if activation.torch_name is None:
        raise InvalidValueError(
            f"activation: {str(activation)!r} is no function of PyTorch's. Expected one of gpunet's own."
        )
    number = (activation.parameter,) if activation.takes_number else ()
    return getattr(nn, activation.torch_name)(*number, **activation.torch_options)


@dataclass
class _Hidden:
    """What was found from one linear layer to the next."""

    linear: Any
    norm: Any = None
    activation: Activation | None = None
    dropout: float = 0.0


def from_torch(
    module: Any, *, loss: str = "softmax_cross_entropy", seed: int = 0, device: str | Backend = "auto"
) -> Network:
    """Return a PyTorch module as a network with the same outputs.

    Parameters
    ----------
    module : torch.nn.Module
        ``Sequential``, also nested: ``Linear``, then, each where wanted and in this order, ``BatchNorm1d``, an
        activation and ``Dropout``, again and again, and a ``Linear`` at the end, with an activation for a regression.
    loss, seed, device
        As of :class:`gpunet.Network`; the module says nothing about them.

    Returns
    -------
    Network
        With copies of the weights, and their dtype.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        A part that a network does not have, or in another order; the message names it.
    """
    with optional_package("torch", extra="oracle", purpose="a PyTorch module"):
        from torch import nn
    if not isinstance(module, nn.Module):
        raise InvalidTypeError(f"module: got {shown(module)}. Expected a torch.nn.Sequential.")
    parts = _parts(nn, module)
    *hidden, last = parts
    norms = [part.norm for part in hidden if part.norm is not None]
    if last.norm is not None or last.dropout:
        raise InvalidValueError("module: has batch norm or dropout after the last Linear. Expected it at the end.")
    network = Network(
        [parts[0].linear.in_features, *(part.linear.out_features for part in parts)],
        activation=[part.activation or Identity() for part in hidden] or "relu",
        output_activation=last.activation or Identity(),
        batch_norm=[part.norm is not None for part in hidden],
        scale_shift=_common("affine", [norm.affine for norm in norms], True),
        batch_norm_momentum=_common("momentum", [norm.momentum for norm in norms], 0.1),
        batch_norm_epsilon=_common("eps", [norm.eps for norm in norms], 1e-5),
        bias_before_batch_norm=any(part.norm is not None and part.linear.bias is not None for part in hidden),
        dropout=[part.dropout for part in hidden],
        loss=loss,
        seed=seed,
        dtype=str(parts[0].linear.weight.dtype).removeprefix("torch."),
        device=device,
    )
    values: dict[str, Array] = {}
    for number, part in enumerate(parts, start=1):
        values[f"W{number}"] = _array(part.linear.weight)
        if part.linear.bias is not None:
            values[f"b{number}"] = _array(part.linear.bias)
        elif f"b{number}" in network.parameters:
            values[f"b{number}"] = np.zeros(part.linear.out_features)
        if part.norm is not None:
            if part.norm.running_mean is None:
                raise InvalidValueError("module: has batch norm with track_running_stats=False. Expected averages.")
            values[f"running_mean{number}"] = _array(part.norm.running_mean)
            values[f"running_variance{number}"] = _array(part.norm.running_var)
            if part.norm.affine:
                values |= {f"gamma{number}": _array(part.norm.weight), f"beta{number}": _array(part.norm.bias)}
    network.set_parameters(values)
    return network


def _parts(nn: Any, module: Any) -> list[_Hidden]:
    """Return the linear layers, each with what follows it."""
    known = {kind.torch_name: kind for kind in ACTIVATIONS.values() if not kind.torch_options}
    parts: list[_Hidden] = []
    for name, leaf in module.named_modules():
        if isinstance(leaf, nn.Sequential):
            continue
        kind = type(leaf).__name__
        place = f"module: {name or 'it'} is {kind}"
        if isinstance(leaf, nn.Linear):
            parts.append(_Hidden(leaf))
            continue
        if not parts:
            raise InvalidValueError(f"{place}. Expected a Sequential that starts with Linear.")
        part = parts[-1]
        if isinstance(leaf, nn.BatchNorm1d) and part.norm is None and part.activation is None and not part.dropout:
            part.norm = leaf
        elif isinstance(leaf, nn.Dropout) and not part.dropout:
            part.dropout = leaf.p
        elif kind in known and part.activation is None and not part.dropout:
            part.activation = _activation(leaf, known[kind])
        else:
            raise InvalidValueError(
                f"{place}. Expected Linear, BatchNorm1d, an activation, Dropout, in this order; an activation is one "
                f"of: {', '.join(sorted(filter(None, known)))}. Softmax is a part of the loss."
            )
    if not parts:
        raise InvalidValueError("module: has no Linear.")
    return parts


def _activation(leaf: Any, kind: type[Activation]) -> Activation:
    if getattr(leaf, "approximate", "none") == "tanh":
        return ACTIVATIONS["gelu_tanh"]()  # type: ignore[call-arg]
    number = next(
        (getattr(leaf, name) for name in ("negative_slope", "alpha") if kind.takes_number and hasattr(leaf, name)), None
    )
    made = kind() if number is None else kind(number)  # type: ignore[call-arg]
    plain = {"Softplus": {"beta": 1, "threshold": 20}, "Hardtanh": {"min_val": -1, "max_val": 1}}
    for name, value in plain.get(kind.torch_name or "", {}).items():
        if getattr(leaf, name) != value:
            raise InvalidValueError(
                f"module: {type(leaf).__name__} has {name}={getattr(leaf, name)}. Expected {value}."
            )
    return made


def _common(name: str, values: list[Any], default: Any) -> Any:
    """Return what all batch norms share."""
    if len(set(values)) > 1 or None in values:
        raise InvalidValueError(f"module: batch norms have {name} {values}. Expected the same number for all of them.")
    return values[0] if values else default


def _array(tensor: Any) -> Array:
    return tensor.detach().cpu().numpy()

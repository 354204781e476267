"""PyTorch: a network as a ``torch.nn.Sequential``, and back."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import ACTIVATIONS, Activation, Identity
from gpunet.backends import Backend
from gpunet.errors import InvalidTypeError, InvalidValueError, optional_package, shown, wrong_ending
from gpunet.files import as_path, replacing
from gpunet.interchange.state_dict import named_steps, numbers, state_dict
from gpunet.interchange.whole_model import FilledIn, Step, WholeModel, whole_model
from gpunet.layers import Loss
from gpunet.network import Network
from gpunet.validation import check_flag

Array = npt.NDArray[Any]


def to_torch(network: Any, *, bare: bool = False) -> Any:
    """Return a model as a PyTorch module: from raw rows to logits, or to the numbers of a regression in their units.

    Its parts are called ``linear1``, ``batch_norm1``, ``activation1``, ``dropout1``, ..., and so are the entries of its
    ``state_dict()``: ``linear1.weight`` is W1, ``batch_norm1.weight`` gamma1, ``batch_norm1.bias`` beta1. Where inputs
    or targets are scaled, ``scaling1`` before and ``target_scaling`` after the rest do it, in float64; where NaN stands
    for missing values, ``imputation1`` fills them in. The loss is not
    a part of it. The module is on the CPU, in evaluation mode, and shares no memory with the network.

    Parameters
    ----------
    network : Network, MLPClassifier or MLPRegressor
        Scaling is that which ``gpunet train`` left in ``network.metadata``, or that of the fitted estimator.
    bare : bool
        Whether to leave scaling out: the module takes what the network takes.

    Returns
    -------
    torch.nn.Sequential

    Raises
    ------
    MissingDependencyError
        PyTorch is not installed.
    InvalidTypeError
        It is neither a network nor a fitted estimator.
    InvalidValueError
        An activation is the user's own.
    """
    whole = whole_model(network, bare=check_flag("bare", bare))
    with optional_package("torch", extra="oracle", purpose="a PyTorch module"):
        import torch

    with whole.network.lock:
        module = _sequential(torch, whole)
        module.load_state_dict({name: torch.from_numpy(values) for name, values in state_dict(whole).items()})
    return module.eval()


def export_torch(network: Any, path: str | os.PathLike[str], *, bare: bool = False) -> Path:
    """Write :func:`to_torch`'s module as a program that PyTorch runs without gpunet: ``torch.export.load(path)``.

    It takes float64 or, where nothing is scaled, what the network takes, (n, d) with any n.

    Parameters
    ----------
    network : Network, MLPClassifier or MLPRegressor
    path : path
        Ends in ``.pt2``. Missing folders are created; an older file is replaced at once or not at all.
    bare : bool
        As of :func:`to_torch`.

    Returns
    -------
    Path

    Raises
    ------
    MissingDependencyError, InvalidTypeError, InvalidValueError
        As :func:`to_torch`; or the file name has another ending.
    OSError
        The file cannot be written.
    """
    path = as_path(path)
    if path.suffix != ".pt2":
        raise wrong_ending("path", path, [".pt2"])
    module = to_torch(network, bare=bare)
    import torch

    whole = whole_model(network, bare=bare)
    dtype = torch.float64 if whole.steps else getattr(torch, whole.network.dtype.name)
    rows = torch.zeros((2, whole.columns), dtype=dtype)
    program = torch.export.export(module, (rows,), dynamic_shapes=({0: torch.export.Dim("n")},))
    content = io.BytesIO()
    torch.export.save(program, content)
    with replacing(path) as file:
        file.write(content.getvalue())
    return path


def _sequential(torch: Any, whole: WholeModel) -> Any:
    """Return the modules of a model, their numbers not yet its own."""
    nn, network = torch.nn, whole.network
    dtype = getattr(torch, network.dtype.name)
    modules: OrderedDict[str, Any] = OrderedDict()
    for name, step in named_steps(whole):
        kept = dtype if step is whole.steps[-1] else torch.float64
        function = _filled_in if isinstance(step, FilledIn) else _scaled
        modules[name] = _traced(torch, step, partial(function, torch), kept)
    hidden = len(network.layer_sizes) - 2
    for number in range(1, hidden + 2):
        inputs, outputs = network.layer_sizes[number - 1 : number + 1]
        modules[f"linear{number}"] = nn.Linear(inputs, outputs, bias=f"b{number}" in network.shapes, dtype=dtype)
        activation = network.output_activation if number > hidden else network.activations[number - 1]
        if number <= hidden and network.batch_norm[number - 1]:
            modules[f"batch_norm{number}"] = nn.BatchNorm1d(
                outputs,
                eps=network.batch_norm_epsilon,
                momentum=network.configuration["batch_norm_momentum"],
                affine=network.scale_shift,
                dtype=dtype,
            )
        if number <= hidden or not isinstance(activation, Identity):
            modules[f"activation{number}"] = _module(nn, activation)
        if number <= hidden and network.configuration["dropout"][number - 1] > 0:
            modules[f"dropout{number}"] = nn.Dropout(network.configuration["dropout"][number - 1])
    if whole.target_scaling is not None:
        modules["target_scaling"] = _traced(
            torch, whole.target_scaling, lambda x, offset, scale: x * scale + offset, torch.float64
        )
    return nn.Sequential(modules)


def _scaled(torch: Any, x: Any, offset: Any, scale: Any) -> Any:
    return (x - offset) / scale


def _filled_in(torch: Any, x: Any, fill: Any, indicated: Any) -> Any:
    missing = torch.isnan(x)
    return torch.cat((torch.where(missing, fill, x), missing[:, indicated].double()), dim=1)


def _traced(torch: Any, step: Step, function: Callable[..., Any], dtype: Any) -> Any:
    """Return a function of x and a step's numbers as a module of PyTorch's own: it is pickled without gpunet."""
    module, graph = torch.nn.Module(), torch.fx.Graph()
    tracer = torch.fx.proxy.GraphAppendingTracer(graph)
    x = torch.fx.Proxy(graph.placeholder("x"), tracer)
    given = []
    for name, values in numbers(step).items():
        module.register_buffer(name, torch.from_numpy(np.zeros_like(values)))
        given.append(torch.fx.Proxy(graph.get_attr(name), tracer))
    graph.output(function(x.double(), *given).to(dtype).node)
    return torch.fx.GraphModule(module, graph)


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
    module: Any, *, loss: str | Loss = "softmax_cross_entropy", seed: int = 0, device: str | Backend = "auto"
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

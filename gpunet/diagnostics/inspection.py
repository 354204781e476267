"""Looking into a network: one forward and one backward pass, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.diagnostics.diagnosis import Diagnosis
from gpunet.diagnostics.distribution import Distribution
from gpunet.diagnostics.records import LayerDiagnosis, ParameterDiagnosis
from gpunet.errors import InvalidTypeError, ShapeError, unknown_name
from gpunet.layers import BatchNorm, BiasActivation, Linear
from gpunet.network import Network, on_network
from gpunet.validation import check_integer, check_number, read_array

Array = npt.NDArray[Any]

# f'(5) of the sigmoid over its largest value, 1/4: the lecture's abs(s) > 5, for any activation.
SATURATED_SLOPE = 4 / (2 + np.exp(5) + np.exp(-5))


@on_network
def inspect(
    network: Network,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    l2: float = 0.0,
    sample_weight: npt.ArrayLike | None = None,
    before: Mapping[str, npt.ArrayLike] | None = None,
    bins: int = 40,
    epoch: int | None = None,
) -> Diagnosis:
    """Return what activations and gradients of a network look like on data.

    Runs in training mode, with batch statistics and the next step's dropout masks, as a step of ``fit`` on these rows
    would; nothing of the network changes: parameters, gradients, running averages and step count are what they were.

    Parameters
    ----------
    network : Network
    X : array_like, (n, d)
        Some hundred rows say as much as all; :func:`spread_rows` picks them.
    y : array_like
        Labels (n,), or numbers (n, c).
    l2 : float
        The lecture's lambda: it counts in the loss and in the gradients of the W_i.
    sample_weight : array_like, (n,), or None
    before : mapping of str to array, or None
        ``network.get_parameters()`` before the last update: gives the update-to-weight ratios.
    bins : int
        Of the histograms.
    epoch : int or None
        Only noted down.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
        The data or ``before`` do not fit the network, or one row with batch norm.
    """
    inputs = network.check_inputs(X)
    rows = inputs.shape[0]
    if rows < network.minimum_batch:
        raise ShapeError(f"X: got 1 row. Expected at least {network.minimum_batch}: batch norm needs a batch.")
    backend = network.backend
    targets = backend.asarray(network.check_targets(y, rows))
    l2 = check_number("l2", l2)
    bins = check_integer("bins", bins, 1)
    weights = None if sample_weight is None else backend.asarray(network.check_weights(sample_weight, rows))
    ratios = {} if before is None else update_ratios(before, network.get_parameters())

    units: dict[int, tuple[Distribution, float | None, tuple[int, ...]]] = {}
    score_gradients: dict[int, Distribution] = {}
    # A network that has diverged is worth a look too.
    with np.errstate(over="ignore", invalid="ignore"), network.kept_averages(), network.kept_gradients():
        for layer, output in network.forward_layers(backend.asarray(inputs)):
            outputs = output
            if isinstance(layer, BiasActivation | BatchNorm):  # of two with one index, the second one has f_i
                units[layer.index] = _units(layer.numbers(output), layer, bins)
        gradient = network.loss_layer(outputs, targets, weights)
        for layer, doutput in network.backward_layers(gradient):
            if isinstance(layer, Linear):
                score_gradients[layer.index] = Distribution.of(network.gradient_numbers(layer, doutput), bins)
        found = _parameters(network, l2, ratios, bins)
        loss = float(backend.to_numpy(network.loss_layer.value)[0]) + network.penalty(l2)
    last = len(network.layer_sizes) - 1
    layers = [
        LayerDiagnosis(
            index=index,
            units=network.layer_sizes[index],
            activation=str(network.output_activation if index == last else network.activations[index - 1]),
            batch_norm=index < last and network.batch_norm[index - 1],
            is_output=index == last,
            outputs=units[index][0],
            score_gradients=score_gradients[index],
            saturated=units[index][1],
            dead=units[index][2],
        )
        for index in range(1, last + 1)
    ]
    return Diagnosis(rows, network.steps, epoch, loss, tuple(layers), found)


def spread_rows(rows: int, most: int) -> Array:
    """Return the indices of at most ``most`` of so many rows, evenly spread, so that sorted data are seen in full.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        Not integers of at least 1.
    """
    rows, most = check_integer("rows", rows, 1), check_integer("most", most, 1)
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(np.int64))


def update_ratios(before: Mapping[str, npt.ArrayLike], after: Mapping[str, npt.ArrayLike]) -> dict[str, float]:
    """Return ||after - before|| / ||before|| by name, for the parameters that were not 0.

    Parameters
    ----------
    before, after : mapping of str to array
        Of one network: ``get_parameters()`` around an update.

    Raises
    ------
    InvalidTypeError
        Not mappings of arrays of numbers.
    InvalidValueError
        A name that ``after`` does not have.
    ShapeError
        Two shapes for one name.
    """
    for argument, values in (("before", before), ("after", after)):
        if not isinstance(values, Mapping):
            raise InvalidTypeError(f"{argument}: got {type(values).__name__}. Expected a mapping of names to arrays.")
    ratios = {}
    for name, value in before.items():
        if name not in after:
            raise unknown_name("before", name, after)
        old, new = _numbers("before", name, value), _numbers("after", name, after[name])
        if old.shape != new.shape:
            raise ShapeError(f"before: got shape {old.shape} for {name}. Expected {new.shape}.")
        with np.errstate(over="ignore", invalid="ignore"):  # the numbers of a network that has diverged
            norm, change = float(np.linalg.norm(old)), float(np.linalg.norm(new - old))
        if norm > 0:
            ratios[name] = change / norm
    return ratios


def _numbers(argument: str, name: str, values: npt.ArrayLike) -> Array:
    array = read_array(f"{argument}: {name}", values)
    if array.dtype.kind not in "iufb":
        raise InvalidTypeError(f"{argument}: got dtype {array.dtype} for {name}. Expected numbers.")
    return array.astype(np.float64)


def _units(
    y: Array, layer: BiasActivation | BatchNorm, bins: int
) -> tuple[Distribution, float | None, tuple[int, ...]]:
    """Return the distribution of a layer's activations (n, m), the saturated share, and the dead units."""
    slopes = np.abs(layer.slopes())
    dead = tuple(np.flatnonzero((slopes == 0).all(axis=0)).tolist())
    saturated = None
    if layer.activation.saturates:
        steepest = layer.activation.derivative_at(np.linspace(-8, 8, 1025)).max()
        saturated = float(np.mean(slopes < SATURATED_SLOPE * steepest))
    return Distribution.of(y, bins), saturated, dead


def _parameters(network: Network, l2: float, ratios: dict[str, float], bins: int) -> dict[str, ParameterDiagnosis]:
    found = {}
    for name, spec in network.layout.specs.items():
        value = network.backend.to_numpy(network.parameters[name]).astype(np.float64)
        gradient = network.backend.to_numpy(network.gradients[name]).astype(np.float64)
        if spec.is_weight:
            gradient += 2 * l2 * value
        found[name] = ParameterDiagnosis(
            name=name,
            norm=float(np.linalg.norm(value)),
            gradient_norm=float(np.linalg.norm(gradient)),
            gradients=Distribution.of(gradient, bins),
            update_ratio=ratios.get(name),
        )
    return found

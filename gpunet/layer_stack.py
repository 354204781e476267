"""The layers of a network in order, their flat buffers, forward and backward: everything that stays on the device."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, Identity, get_activation
from gpunet.backends import Backend, select_backend
from gpunet.errors import InvalidTypeError, InvalidValueError, shown, unknown_name
from gpunet.initializers import INITIALIZERS, Initializer, default_initializer, get_initializer, reading
from gpunet.layers import LOSSES, BatchNorm, BiasActivation, Dropout, Layer, Linear, Workspace
from gpunet.parameters import Layout, flat_values
from gpunet.random import Purpose, host_generator
from gpunet.turns import SoleUse, in_turn
from gpunet.validation import (
    check_dtype,
    check_flag,
    check_integer,
    check_normal,
    check_number,
    check_precision,
    check_rate,
    check_sizes,
    per_layer,
)

Array = npt.NDArray[Any]

LARGEST_STEP = 2**63 - 1


class LayerStack:
    """What training runs: layers with parameters in flat buffers. Its arguments are those of :class:`gpunet.Network`.

    Nothing is checked here beyond the arguments: arrays are on the device, contiguous and of the network's dtype.
    Layers keep their outputs in buffers, so whoever calls :meth:`forward` or :meth:`backward` holds ``lock`` until the
    results are read.
    """

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation = "identity",
        batch_norm: bool | Sequence[bool] = True,
        scale_shift: bool = True,
        batch_norm_momentum: float = 0.1,
        batch_norm_epsilon: float = 1e-5,
        bias_before_batch_norm: bool = False,
        dropout: float | Sequence[float] = 0.0,
        initializer: str | Initializer | None = None,
        initial_bias: float = 0.0,
        loss: str = "softmax_cross_entropy",
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
        precision: str = "float32",
        device: str | Backend = "auto",
    ) -> None:
        self.layer_sizes = check_sizes(layer_sizes)
        hidden = len(self.layer_sizes) - 2
        self.activations: list[Activation] = per_layer("activation", activation, hidden, get_activation)
        self.batch_norm: list[bool] = per_layer("batch_norm", batch_norm, hidden, partial(check_flag, "batch_norm"))
        self.dropout: list[float] = per_layer("dropout", dropout, hidden, partial(check_rate, "dropout"))
        self.scale_shift = check_flag("scale_shift", scale_shift)
        self.batch_norm_momentum = check_number("batch_norm_momentum", batch_norm_momentum, maximum=1.0)
        self.batch_norm_epsilon = check_number("batch_norm_epsilon", batch_norm_epsilon, above=True)
        self.dtype = check_dtype(dtype)
        check_normal("batch_norm_epsilon", self.batch_norm_epsilon, self.dtype)
        self.bias_before_batch_norm = check_flag("bias_before_batch_norm", bias_before_batch_norm)
        largest = float(np.finfo(self.dtype).max)
        self.initial_bias = check_number("initial_bias", initial_bias, minimum=-largest, maximum=largest)
        if not isinstance(loss, str):
            raise InvalidTypeError(f"loss: got {shown(loss)}. Expected one of: {', '.join(sorted(LOSSES))}.")
        if loss not in LOSSES:
            raise unknown_name("loss", loss, LOSSES)
        if LOSSES[loss].is_classifier and self.layer_sizes[-1] < 2:
            raise InvalidValueError(
                f"layer_sizes: 1 output for the loss {loss!r}. Expected at least 2, one per class; "
                "loss='sigmoid_cross_entropy' and loss='squared_error' take 1."
            )
        self.output_activation = get_activation(output_activation, "output_activation")
        if LOSSES[loss].has_probabilities and not isinstance(self.output_activation, Identity):
            raise InvalidValueError(
                f"output_activation: got {str(self.output_activation)!r} with loss={loss!r}, which turns the outputs "
                "into probabilities itself. Expected 'identity', or loss='squared_error'."
            )
        if initializer is None:
            self.initializer = default_initializer(self.activations[0] if hidden else self.output_activation)
        else:
            self.initializer = get_initializer(initializer)
        self.seed = check_integer("seed", seed, 0, 2**64 - 1)
        self.precision = check_precision(precision, self.dtype)
        self.backend = select_backend(device, self.precision)
        self.device = self.backend.device_name if isinstance(device, Backend) else device
        self.lock = self.backend.lock
        self.in_training = SoleUse("network")
        self.metadata: dict[str, Any] = {}

        self.workspace = Workspace(self.backend)
        self.loss_layer = LOSSES[loss]()
        self.steps = 0
        self._step = self.backend.zeros(1, np.int64)
        self.layers = self._build_layers()
        self.layout = Layout([spec for layer in self.layers for spec in layer.parameter_specs()])
        self.state_layout = Layout([spec for layer in self.layers for spec in layer.state_specs()])
        self._fill()

    # --- construction -----------------------------------------------------------------------------------------------

    def _build_layers(self) -> list[Layer]:
        layers: list[Layer] = []
        last = len(self.layer_sizes) - 1
        for index, (inputs, outputs) in enumerate(zip(self.layer_sizes, self.layer_sizes[1:], strict=False), start=1):
            layers.append(Linear(index, inputs, outputs))
            if index == last:
                layers.append(BiasActivation(index, outputs, self.output_activation))
                break
            activation = self.activations[index - 1]
            if self.batch_norm[index - 1]:
                if self.bias_before_batch_norm:
                    layers.append(BiasActivation(index, outputs, Identity()))
                layers.append(
                    BatchNorm(
                        index,
                        outputs,
                        activation,
                        scale_shift=self.scale_shift,
                        momentum=self.batch_norm_momentum,
                        epsilon=self.batch_norm_epsilon,
                        initial_beta=self.initial_bias,
                    )
                )
            else:
                layers.append(BiasActivation(index, outputs, activation, self.initial_bias))
            if self.dropout[index - 1] > 0:
                layers.append(Dropout(index, outputs, self.dropout[index - 1], self.seed, self._step))
        return layers

    def _fill(self) -> None:
        """Allocate the buffers and draw the initial weights."""
        self._allocate()
        self.reset_parameters()

    def _allocate(self) -> None:
        """Allocate the flat buffers and give every layer, and the loss, its views."""
        self.flat_parameters = self.layout.new_vector(self.backend, self.dtype)
        self.flat_gradients = self.layout.new_vector(self.backend, self.dtype)
        self.flat_state = self.state_layout.new_vector(self.backend, self.dtype)
        self.parameters = self.layout.views(self.flat_parameters)
        self.gradients = self.layout.views(self.flat_gradients)
        self.state = self.state_layout.views(self.flat_state)
        for part in (*self.layers, self.loss_layer):
            part.bind(self.backend, self.workspace, self.dtype, self.parameters, self.gradients, self.state)

    @in_turn
    def reset_parameters(self) -> None:
        """Draw the initial weights again, set biases, gamma, beta and running averages back, and count from step 0.

        An optimizer that has trained this network keeps its moments: use a new one.
        """
        values = {}
        for name, spec in self.layout.specs.items():
            if not spec.is_weight:
                values[name] = np.full(spec.shape, spec.initial)
                continue
            index = int(name[1:])
            initializer = reading(self.initializer, self.activations[index - 2] if index > 1 else Identity())
            generator = host_generator(self.seed, Purpose.WEIGHTS, index)
            values[name] = np.asarray(initializer((spec.shape[0], spec.shape[1]), generator))
            if not _are_numbers(values[name], spec.shape, self.dtype):
                raise InvalidValueError(
                    f"initializer: returned {values[name].dtype} numbers of shape {values[name].shape} for {name}. "
                    f"Expected finite {self.dtype} numbers of shape {spec.shape}."
                )
        state: dict[str, Array] = {
            name: np.full(spec.shape, spec.initial) for name, spec in self.state_layout.specs.items()
        }
        self.backend.copy(flat_values(self.layout, values, self.dtype), self.flat_parameters)
        self.backend.copy(flat_values(self.state_layout, state, self.dtype), self.flat_state)
        self.set_step(0)

    # --- what a network is ------------------------------------------------------------------------------------------

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return self.loss_layer.name

    @property
    def is_classifier(self) -> bool:
        """Whether every row belongs to one class: targets are labels (n,), otherwise numbers (n, c)."""
        return self.loss_layer.is_classifier

    @property
    def has_probabilities(self) -> bool:
        """Whether the outputs stand for probabilities: there are labels to predict, and an accuracy."""
        return self.loss_layer.has_probabilities

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of parameters and running averages, by name."""
        return {name: spec.shape for layout in (self.layout, self.state_layout) for name, spec in layout.specs.items()}

    @property
    def parameter_count(self) -> int:
        """Number of learnt numbers."""
        return self.layout.count

    @property
    def minimum_batch(self) -> int:
        """Rows that a training batch needs at least: 2 with batch norm, otherwise 1."""
        return 2 if any(self.batch_norm) else 1

    @property
    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments, device aside, as JSON can hold them."""
        initializer = str(self.initializer)
        return {
            "layer_sizes": list(self.layer_sizes),
            "activation": [str(activation) for activation in self.activations],
            "output_activation": str(self.output_activation),
            "batch_norm": list(self.batch_norm),
            "scale_shift": self.scale_shift,
            "batch_norm_momentum": self.batch_norm_momentum,
            "batch_norm_epsilon": self.batch_norm_epsilon,
            "bias_before_batch_norm": self.bias_before_batch_norm,
            "dropout": list(self.dropout),
            "initializer": initializer if initializer.split("(")[0] in INITIALIZERS else None,
            "initial_bias": self.initial_bias,
            "loss": self.loss,
            "seed": self.seed,
            "dtype": self.dtype.name,
            "precision": self.precision,
        }

    # --- on the device: what training runs --------------------------------------------------------------------------

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the outputs of a batch that is on the device already.

        Parameters
        ----------
        x : array, (n, d)
            C-contiguous, of the network's dtype. Not checked.
        training : bool
            Whether batch statistics and dropout apply and the running averages move.

        Returns
        -------
        array, (n, c)
            A buffer of the last layer, overwritten by the next forward.
        """
        for _, output in self.forward_layers(x, training=training):
            x = output
        return x

    def forward_layers(self, x: Array, *, training: bool = True, dropout: bool = True) -> Iterator[tuple[Layer, Array]]:
        """Run layer after layer and yield each with its output, which the next one may overwrite.

        A layer runs when it is asked for, with the parameters that it has then.

        Parameters
        ----------
        x : array, (n, d)
            On the device.
        training : bool
            As in :meth:`forward`.
        dropout : bool
            False passes all units on.
        """
        for layer in self.layers:
            x = layer.output = layer.forward(x, training and (dropout or not isinstance(layer, Dropout)))
            yield layer, x

    def backward(self, doutputs: Array, input_gradient: bool = False) -> Array | None:
        """Write the gradient of the data term into ``gradients``, for the last forward.

        That forward must have been in training mode; another one in between, also by :meth:`predict`, overwrites what
        the layers keep for this.

        Parameters
        ----------
        doutputs : array, (n, c)
            Gradient with respect to the outputs; may be overwritten.
        input_gradient : bool
            Whether to return the gradient with respect to the input as well.

        Returns
        -------
        array, (n, d), or None
        """
        passes = self.backward_layers(doutputs, input_gradient=input_gradient)
        while True:
            try:
                next(passes)
            except StopIteration as end:
                return end.value

    def backward_layers(
        self, doutputs: Array, *, dropout: bool = True, input_gradient: bool = False
    ) -> Generator[tuple[Layer, Array], None, Array | None]:
        """Go back through :meth:`forward_layers` and yield each layer with the gradient of J at its output.

        The layer's own backward, which may overwrite that gradient and writes those of its parameters, runs afterwards:
        when the next layer is asked for. At the end, the gradient with respect to the input is returned.

        Parameters
        ----------
        doutputs, input_gradient
            As in :meth:`backward`.
        dropout : bool
            As in the forward pass.
        """
        gradient: Array | None = doutputs
        for position, layer in reversed(list(enumerate(self.layers))):
            assert gradient is not None
            yield layer, gradient
            if dropout or not isinstance(layer, Dropout):
                gradient = layer.backward(gradient, input_gradient=input_gradient or position > 0)
        return gradient

    @contextmanager
    def kept_averages(self) -> Iterator[None]:
        """Put the running averages back at the end: passes in training mode move them."""
        with self._kept(self.flat_state):
            yield

    @contextmanager
    def kept_gradients(self) -> Iterator[None]:
        """Put the gradients back at the end: :meth:`backward` writes them."""
        with self._kept(self.flat_gradients):
            yield

    @contextmanager
    def _kept(self, vector: Array) -> Iterator[None]:
        before = self.backend.empty(vector.shape, vector.dtype)
        self.backend.copy(vector, before)
        try:
            yield
        finally:
            self.backend.copy(before, vector)

    @in_turn
    def set_step(self, step: int) -> None:
        """Set the number of training steps done, which the dropout masks depend on.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            Not an integer from 0 to 2^63 - 1.
        """
        step = check_integer("step", step, 0, LARGEST_STEP)
        self.backend.copy(np.array([step], dtype=np.int64), self._step)
        self.steps = step

    @in_turn
    def is_finite(self) -> bool:
        """Return whether every parameter and every running average is a finite number."""
        vectors = (self.flat_parameters, self.flat_state)
        return all(bool(np.isfinite(self.backend.to_numpy(vector)).all()) for vector in vectors)

    @in_turn
    def first_non_finite(self) -> str | None:
        """Name the first parameter or layer output, in forward order, that the last forward left NaN or infinite."""
        for layer, following in zip(self.layers, [*self.layers[1:], None], strict=True):
            for spec in layer.parameter_specs():
                if not np.isfinite(self.backend.to_numpy(self.parameters[spec.name])).all():
                    return f"parameter {spec.name}"
            for spec in layer.state_specs():
                if not np.isfinite(self.backend.to_numpy(self.state[spec.name])).all():
                    return f"running average {spec.name}"
            overwritten = following is not None and following.output is layer.output
            if not overwritten and not np.isfinite(self.backend.to_numpy(layer.output)).all():
                return f"output of {layer.name}"
        return None


def _are_numbers(values: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Say whether an initialiser returned finite numbers of the right shape, also once they are of ``dtype``."""
    if values.shape != shape or values.dtype.kind not in "iuf":
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype(dtype)).all())

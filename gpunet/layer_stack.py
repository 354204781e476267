"""The layers of a network in order, their flat buffers, forward and backward: everything that stays on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.backends.half import HALF_DTYPES, ROW_MULTIPLE, is_half
from gpunet.backends.narrow_stack import NarrowStack
from gpunet.backends.reference.training import Tally
from gpunet.layers import BatchNorm, BiasActivation, Dropout, Layer, Linear, Loss, Memory, Workspace
from gpunet.mixed_precision import LossScale, WeightCopies
from gpunet.narrow import narrow_stack
from gpunet.parameters import Layout
from gpunet.recorded_pass import RecordedPasses
from gpunet.step_count import StepCount
from gpunet.turns import SoleUse, in_turn
from gpunet.validation import check_integer

Array = npt.NDArray[Any]

LARGEST_STEP = 2**63 - 1

_PARAMETER, _STATE, _OUTPUT = "parameter ", "running average ", "output of "


class LayerStack:
    """What training runs: layers in order, with parameters in flat buffers, and a loss.

    It has no parameters before :meth:`allocate`. Nothing is checked here: arrays are on the device, contiguous and of
    the network's dtype. Layers keep their outputs in buffers: whoever calls :meth:`forward` or :meth:`backward` holds
    ``lock`` until the results are read.

    Parameters
    ----------
    layers : sequence of Layer
        From the inputs to the outputs.
    loss_layer : Loss
    backend : Backend
    dtype : dtype
        Of parameters, data and outputs; of buffers too, but for half precision.
    precision : str
        ``"bfloat16"`` and ``"float16"``: what matrices between the layers are stored as.

    Attributes
    ----------
    loss_scale : LossScale or None
        What gradients of float16 are multiplied with.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        loss_layer: Loss,
        backend: Backend,
        dtype: np.dtype[Any],
        precision: str = "float32",
    ) -> None:
        self.layers = tuple(layers)
        self.loss_layer = loss_layer
        self.backend = backend
        self.dtype = dtype
        self.lock = backend.lock
        self.in_training = SoleUse("network")
        self.storage = HALF_DTYPES.get(precision, dtype)
        self.loss_scale = LossScale(backend) if precision == "float16" else None
        # The padding of rows is to hold zeros.
        self.workspace = Workspace(backend, is_zeroed=precision in HALF_DTYPES)
        self.step_count = StepCount(backend)
        self._passes = RecordedPasses(self.workspace)
        self.layout = Layout([spec for layer in self.layers for spec in layer.parameter_specs()])
        self.state_layout = Layout([spec for layer in self.layers for spec in layer.state_specs()])

    def allocate(self) -> None:
        """Allocate the flat buffers and give every layer, and the loss, its views."""
        self.flat_parameters = self.layout.new_vector(self.backend, self.dtype)
        self.flat_gradients = self.layout.new_vector(self.backend, self.dtype)
        self.flat_state = self.state_layout.new_vector(self.backend, self.dtype)
        self.parameters = self.layout.views(self.flat_parameters)
        self.gradients = self.layout.views(self.flat_gradients)
        self.state = self.state_layout.views(self.flat_state)
        memory = Memory(
            self.backend,
            self.workspace,
            self.dtype,
            self.dtype,
            1,
            self.parameters,
            self.parameters,
            self.gradients,
            self.state,
            self.step_count.on_device,
        )
        copies, hidden = None, memory
        if self.storage != self.dtype:
            multiple = ROW_MULTIPLE if all(map(_bears_padding, self.layers)) else 1
            copies = WeightCopies(self.backend, self.layout, self.flat_parameters, self.storage, multiple)
            scale = None if self.loss_scale is None else self.loss_scale.on_device
            memory = replace(memory, weights=copies.views, loss_scale=scale)
            hidden = replace(
                memory,
                storage=self.storage,
                multiple=multiple,
                parameters=self.layout.views(self.flat_parameters, multiple),
                gradients=self.layout.views(self.flat_gradients, multiple),
                state=self.state_layout.views(self.flat_state, multiple),
            )
        self.weight_copies = copies
        # The outputs, their bias, the loss and its gradient are float32 at every precision below float64.
        last = max((layer.index for layer in self.layers), default=0)
        for layer in self.layers:
            layer.bind(memory if layer.index == last else hidden)
        if hidden.multiple == 1:  # otherwise the padding of one layer's rows would not stay 0 for another's
            writers = [layer for layer in self.layers if isinstance(layer, Linear | BatchNorm) and layer.index < last]
            for taking_turns in filter(None, (writers[::2], writers[1::2])):
                widest = max(taking_turns, key=lambda layer: layer.columns)
                for layer in taking_turns:
                    layer.inference_buffer = f"{widest.name}.{'s' if isinstance(widest, Linear) else 'y'}"
        self.loss_layer.bind(memory)

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
    def steps(self) -> int:
        """The number of training steps done."""
        return self.step_count.value

    @property
    def parameter_count(self) -> int:
        """Number of learnt numbers."""
        return self.layout.count

    @property
    def minimum_batch(self) -> int:
        """Rows that a training batch needs at least: 2 with batch norm, otherwise 1."""
        return 2 if any(isinstance(layer, BatchNorm) for layer in self.layers) else 1

    def inference_work(self, rows: int) -> float:
        """Return the floating-point operations of the products that so many rows need in inference mode."""
        weights = [math.prod(spec.shape) for spec in self.layout.specs.values() if spec.is_weight]
        return 2.0 * rows * sum(weights)

    def training_work(self, rows: int) -> float:
        """Return those of training on so many rows for 20 epochs, however many it will be.

        So what a backend chooses by it is the same where a run goes on from a checkpoint, for more epochs than before.
        """
        return 20 * 3 * self.inference_work(rows)

    # --- on the device: what training runs --------------------------------------------------------------------------

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the outputs of a batch that is on the device already.

        Parameters
        ----------
        x : array, (n, d)
            C-contiguous, of the network's dtype, and no output of a hidden layer. Not checked.
        training : bool
            Whether batch statistics and dropout apply and the running averages move.

        Returns
        -------
        array, (n, c)
            A buffer of the last layer, overwritten by the next forward.
        """
        self.copy_weights()
        recorder = None if training else self.backend.pass_recorder
        if recorder is None:
            return self._run(self.layers, x, training)
        return self._passes(recorder, self.layers, partial(self._run, self.layers, training=False), x)

    @staticmethod
    def _run(layers: Sequence[Layer], x: Array, training: bool) -> Array:
        """Return what layers one after the other make of x; a linear one and its bias and activation are one."""
        linear: Linear | None = None
        for layer, following in zip(layers, (*layers[1:], None), strict=True):
            if isinstance(layer, Linear) and isinstance(following, BiasActivation):
                linear = layer  # waits for the next
            elif linear is not None and isinstance(layer, BiasActivation):
                x = layer.output = layer.forward_after(linear, x, training)
                linear = None
            else:
                x = layer.output = layer.forward(x, training)
        return x

    def copy_weights(self) -> None:
        """Let the layers have the weights that the network has now; :meth:`forward` does that by itself."""
        if self.weight_copies is not None:
            self.weight_copies.refresh()

    def forward_layers(self, x: Array, *, training: bool = True, dropout: bool = True) -> Iterator[tuple[Layer, Array]]:
        """Run layer after layer and yield each with its output, which those after it may overwrite.

        A layer runs when it is asked for, with the parameters that it has then. ``Layer.numbers`` reads outputs.

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
            self.copy_weights()
            x = layer.output = layer.forward(x, training and (dropout or not isinstance(layer, Dropout)))
            yield layer, x

    def narrow_pass(self, x: Array, targets: Array, weights: Array | None) -> bool:
        """Write J of a training batch into the loss's ``value`` and its gradient into ``gradients``, in one launch.

        The layers keep nothing of it.

        Returns
        -------
        bool
            False where there is no such launch, or none is wanted: nothing is done then.
        """
        stack = (
            self.narrow_stack(len(x))
            if self.backend.has_narrow_passes and weights is None and targets.ndim == 1
            else None
        )
        if stack is not None:
            vectors = self.flat_parameters, self.flat_state, self.flat_gradients
            self.backend.narrow_pass(x, targets, stack, *vectors, self.loss_layer.value)
        return stack is not None

    def narrow_stack(self, rows: int) -> NarrowStack | None:
        """Return what describes the network to a pass in one launch, None where it has none for so many rows."""
        if self.weight_copies is not None:  # which is not written for half precision
            return None
        stack = narrow_stack(self.layers, self.loss_layer, self.layout, self.state_layout)
        return stack if stack is not None and self.backend.fits_narrow_pass(stack, rows) else None

    def backward(self, doutputs: Array, input_gradient: bool = False) -> Array | None:
        """Write the gradient of the data term into ``gradients``, for the last forward.

        That forward must have been in training mode; another one in between, also by ``predict``, overwrites what
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
            With half precision as its layers have it: :meth:`gradient_numbers` reads it.
        """
        passes = self.backward_layers(doutputs, input_gradient=input_gradient)
        while True:
            try:
                next(passes)
            except StopIteration as end:
                return end.value

    def backward_layers(
        self,
        doutputs: Array,
        *,
        dropout: bool = True,
        input_gradient: bool = False,
    ) -> Generator[tuple[Layer, Array], None, Array | None]:
        """Go back through :meth:`forward_layers` and yield each layer with the gradient of J at its output.

        The layer's own backward, which may overwrite that gradient and writes those of its parameters, runs afterwards:
        when the next layer is asked for. At the end, the gradient with respect to the input is returned.
        :meth:`gradient_numbers` reads gradients.

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
        self.backend.join()
        self.unscale_gradients()
        return gradient

    def differentiate(
        self,
        x: Array,
        targets: Array,
        weights: Array | None,
        input_gradient: bool = False,
        tally: Tally | None = None,
        class_weights: Array | None = None,
        loss: Callable[..., Array] | None = None,
    ) -> Array | None:
        """Write J, the data term, and its gradient for a batch: a pass in training mode, the loss, and the way back.

        Where the last layer adds a bias and nothing else, the loss does so, and has the gradient of the bias, too: the
        same numbers in fewer passes over the outputs. In a recording, ``gradients`` is complete after the backend's
        ``join``, and with float16 after :meth:`unscale_gradients`: what is asked for before that runs beside the last
        product.

        Parameters
        ----------
        x : array, (n, d)
        targets, weights, class_weights : array
            As the loss takes them.
        input_gradient : bool
            Whether to return the gradient with respect to the input as well.
        tally : Tally or None
            Where the loss counts a training step.
        loss : callable or None
            In the place of ``loss_layer``, which has the same parameters.

        Returns
        -------
        array, (n, d), or None
        """
        *layers, last = self.layers
        bias = last.bias_alone() if isinstance(last, BiasActivation) else None
        gradient: Array | None
        loss = loss or self.loss_layer
        if bias is None:
            layers = [*self.layers]
            outputs = self.forward(x, training=True)
            gradient = loss(outputs, targets, weights, tally=tally, class_weights=class_weights)
        else:
            self.copy_weights()
            x = last.output = self._run(layers, x, training=True)
            gradient = loss(x, targets, weights, *bias, tally, class_weights)
        for position, layer in reversed(list(enumerate(layers))):
            assert gradient is not None
            gradient = layer.backward(gradient, input_gradient or position > 0)
        return gradient

    def unscale_gradients(self, interval: int = 0, batches: int = 1, loss: Array | None = None) -> None:
        """Divide ``gradients`` by the loss scale, if there is one; :meth:`backward` does that by itself.

        Parameters
        ----------
        interval : int
            In a step of training: the finite steps after which the scale grows. 0 leaves it.
        batches : int
            That a step takes its gradients from.
        loss : array, (2,), or None
            The mean of theirs; None for the last batch's.
        """
        if self.loss_scale is None:
            return
        # The last bias lies behind all that is scaled: its gradient was summed before, in float32.
        last_bias = next(reversed(self.layout.slices.values()))
        self.backend.unscale_gradients(
            self.flat_gradients[: last_bias.start],
            self.loss_layer.value if loss is None else loss,
            self.loss_scale.on_device,
            self.loss_scale.guard,
            interval,
            batches,
        )

    @property
    def loss_scale_state(self) -> dict[str, Any] | None:
        """What a file keeps of the loss scale; None without one."""
        return None if self.loss_scale is None else self.loss_scale.to_dict()

    @property
    def guard(self) -> Array:
        """What an optimiser's step takes for the loss: not finite where the step is to change nothing, (2,)."""
        return self.loss_layer.value if self.loss_scale is None else self.loss_scale.guard

    def gradient_numbers(self, layer: Layer, gradient: Array) -> Array:
        """Return the gradient at a layer's output, (n, columns), on the host, in the network's dtype."""
        numbers = layer.numbers(gradient)
        return numbers / self.loss_scale.value if self.loss_scale is not None and is_half(gradient) else numbers

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
    def kept_loss_scale(self, scale: float | None = None) -> Iterator[None]:
        """Put the loss scale, if there is one, back at the end; begin with another one where it is given."""
        before = self.loss_scale_state
        if self.loss_scale is None or before is None:
            yield
            return
        try:
            if scale is not None:
                self.loss_scale.restore(before | {"scale": scale})
            yield
        finally:
            self.loss_scale.restore(before)

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
        self.step_count.set(check_integer("step", step, 0, LARGEST_STEP))

    @in_turn
    def is_finite(self) -> bool:
        """Return whether every parameter and every running average is a finite number."""
        vectors = (self.flat_parameters, self.flat_state)
        return all(bool(np.isfinite(self.backend.to_numpy(vector)).all()) for vector in vectors)

    @in_turn
    def first_non_finite(self, x: Array | None = None) -> str | None:
        """Name the first parameter or layer output, in forward order, that is NaN or infinite.

        Parameters
        ----------
        x : array, (n, d), or None
            On the device: the outputs are those of a pass in inference mode; None stands for the last pass in training
            mode.
        """
        passed = (
            ((layer, layer.output) for layer in self.layers) if x is None else self.forward_layers(x, training=False)
        )
        for (layer, output), following in zip(passed, [*self.layers[1:], None], strict=True):
            for spec in layer.parameter_specs():
                if not np.isfinite(self.backend.to_numpy(self.parameters[spec.name])).all():
                    return _PARAMETER + spec.name
            for spec in layer.state_specs():
                if not np.isfinite(self.backend.to_numpy(self.state[spec.name])).all():
                    return _STATE + spec.name
            overwritten = x is None and following is not None and following.output is output
            if not overwritten and not np.isfinite(layer.numbers(output)).all():
                return _OUTPUT + layer.name
        return None

    def places(self) -> list[str]:
        """Return all that :meth:`first_non_finite` may name, in forward order."""
        places = []
        for layer in self.layers:
            places += [_PARAMETER + spec.name for spec in layer.parameter_specs()]
            places += [_STATE + spec.name for spec in layer.state_specs()]
            places.append(_OUTPUT + layer.name)
        return places


def _bears_padding(layer: Layer) -> bool:
    """Say whether columns of zeros stay finite in a layer: f(0) is then multiplied with 0, and f'(0) too."""
    if not isinstance(layer, BiasActivation | BatchNorm):
        return True
    zero, largest = np.zeros(1, np.float32), float(np.finfo(np.float16).max)
    with np.errstate(all="ignore"):
        values = layer.activation.forward(zero), layer.activation.derivative_at(zero)
    return bool((np.abs(values) < largest).all())

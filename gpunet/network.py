"""The k-layer network (lecture rows L1-L5, L7, L22-L24), as users call it: with arrays of their own libraries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from gpunet.activations import Activation, Identity, get_activation
from gpunet.backends import Backend, select_backend
from gpunet.backends.half import HALF_DTYPES, is_half, widen
from gpunet.columns import columns_in_order, known_columns
from gpunet.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    unknown_name,
)
from gpunet.initializers import INITIALIZERS, Initializer, default_initializer, draw, get_initializer, reading
from gpunet.labels import CLASSES, check_labels, known_classes, learn_classes
from gpunet.layer_stack import LayerStack
from gpunet.layers import BatchNorm, BiasActivation, Dropout, Layer, Linear, Loss, get_loss
from gpunet.parameters import flat_values
from gpunet.random import Purpose, host_generator
from gpunet.serialization import write_tensors
from gpunet.turns import in_turn
from gpunet.validation import (
    ALL,
    DeviceArray,
    are_probabilities,
    check_distributions,
    check_dtype,
    check_features,
    check_flag,
    check_integer,
    check_json,
    check_normal,
    check_number,
    check_parameter,
    check_precision,
    check_rate,
    check_sizes,
    check_targets,
    check_weights,
    element,
    first,
    is_on_cuda,
    per_layer,
)

Array = npt.NDArray[Any]
_P = ParamSpec("_P")
_R = TypeVar("_R")

FORMAT = "gpunet.network"
FORMAT_VERSION = 1
# Arguments that the first files of version 1 lack, and what they mean there.
ADDED_ARGUMENTS: dict[str, Any] = {"output_activation": "identity"}
_PREDICTION_ROWS = 4096
# Attributes of a network that are read anew whenever they count.
_SETTABLE = ("metadata", "initializer")


class Network(LayerStack):
    """A fully connected network with k linear layers.

    Hidden layer i computes x_i = f_i(BatchNorm(W_i x_{i-1})), or x_i = f_i(W_i x_{i-1} + b_i) without batch norm, then
    dropout where asked for; the last layer computes W_k x_{k-1} + b_k, or f(W_k x_{k-1} + b_k) with an output
    activation f. Rows are examples: X is (n, d), W_i is (m_i, m_{i-1}), S_i = X_{i-1} W_i^T.

    Parameters
    ----------
    layer_sizes : sequence of int
        d, m_1, ..., m_k: inputs, hidden widths, outputs; at least two numbers, each at least 1.
    activation : str, Activation, or a sequence of k - 1 of them
        ``"relu"``, ``"leaky_relu(0.1)"``, ``"gelu"``, ...: one of :mod:`gpunet.activations`, or a function of your own.
    output_activation : str or Activation
        Of the last layer. Another one than ``"identity"`` is for ``loss="squared_error"``: the other losses turn the
        outputs into probabilities themselves.
    batch_norm : bool, or a sequence of k - 1
        Whether a hidden layer normalises its batch before the activation.
    scale_shift : bool
        Whether batch norm learns gamma and beta.
    batch_norm_momentum : float
        Weight of the new value in the running averages, 0 to 1.
    batch_norm_epsilon : float
        Added to the variance, above 0.
    bias_before_batch_norm : bool
        Whether a linear layer keeps its bias where batch norm follows. Its gradient is exactly zero there.
    dropout : float, or a sequence of k - 1
        Rate after each hidden activation, 0 to 1, 1 excluded.
    initializer : str, callable or None
        ``"he_normal"``, ``"xavier_uniform"``, ``"normal(0.01)"``, ``"zeros"``, ...; None takes He for the ReLU family
        and Xavier for the others.
    initial_bias : float
        Where hidden biases (beta under batch norm) start; slightly positive keeps ReLU units alive (L18).
    loss : str or Loss
        For classes that exclude one another ``"softmax_cross_entropy"``, of labels or probabilities; of labels that
        are smoothed ``"softmax_cross_entropy(0.1)"``, or :class:`gpunet.SoftmaxCrossEntropy`.
        ``"sigmoid_cross_entropy"`` for outputs that are true or false each by itself, or any probability (several
        labels per row, auto-encoders of numbers in [0, 1]). For numbers ``"squared_error"``; ``"huber"``,
        ``"huber(0.5)"`` or :class:`gpunet.Huber`, where outliers are among them; ``"quantile"``,
        ``"quantile(0.1, 0.5, 0.9)"`` or :class:`gpunet.Quantile` for their median, or other quantiles: one, or one per
        output. Or a loss of your own, :class:`gpunet.CustomLoss`.
    seed : int
        Draws the weights, the order of the examples in ``fit``, and the dropout masks.
    dtype : str or dtype
        ``"float32"`` or ``"float64"``.
    precision : str
        Of float32 networks. ``"tf32"`` lets a CUDA device use only 10 bits of the mantissas in float32 matrix products,
        for its tensor cores; ``"float32"`` does not. ``"bfloat16"`` and ``"float16"`` store what is between the layers,
        its gradients and copies of the weights in 16 bits; parameters, statistics, sums, outputs and loss stay float32
        (:doc:`/precision`). The CPU emulates these two, slowly.
    device : str or Backend
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; or a backend of its own. On the CPU, calls with much
        work run on compiled kernels where Numba is installed (:doc:`/cpu`); ``"cpu:compiled"`` and ``"cpu:numpy"``
        let them, or NumPy, do everything.

    Attributes
    ----------
    parameters, gradients, state : dict of str to array
        Named views, on the device, of the flat buffers: ``W1``, ``gamma1``, ``beta1``, ..., ``Wk``, ``bk``;
        ``state`` has ``running_mean1``, ``running_variance1``, ... Writing into a view changes the network; a view
        cannot be exchanged. On CUDA the network works on a stream of its own: use :meth:`get_parameters` and
        :meth:`set_parameters`, or synchronise before and after touching a view.
    loss_scale : LossScale or None
        Of float16: what gradients are multiplied with, and how many steps were skipped.
    layers : tuple of Layer
        The ``rate`` and the ``seed`` of dropout and the ``momentum`` of batch norm may be set:
        ``network.layers[2].rate = 0.1`` where that is a dropout layer. Those of the network, its arguments, may not.
    metadata : dict
        Anything JSON can hold (class names, scaling of the inputs); saved with the network. ``"class_labels"`` are
        what :attr:`classes` tells.
    lock : TurnLock
        Held by each of the network's methods and by the functions of gpunet that take it.

    Raises
    ------
    InvalidValueError, InvalidTypeError, DeviceError

    Notes
    -----
    Threads may share a network: a call waits for the one before it, and computes with one set of weights from its first
    row to its last. While one thread trains it, the others get their turns between two steps (or between an epoch and
    its validation); a second ``fit`` is refused. One network gains nothing from threads; copies (``copy.deepcopy``) run
    beside one another. The views, ``forward`` and ``backward`` are for one thread, or within
    ``with network.lock:``.

    Examples
    --------
    >>> import numpy as np
    >>> network = Network([4, 8, 3], seed=0, device="cpu")
    >>> network.predict(np.zeros((2, 4))).shape
    (2,)
    >>> list(network.parameters)
    ['W1', 'gamma1', 'beta1', 'W2', 'b2']
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
        loss: str | Loss = "softmax_cross_entropy",
        seed: int = 0,
        dtype: npt.DTypeLike = "float32",
        precision: str = "float32",
        device: str | Backend = "auto",
    ) -> None:
        self.layer_sizes = check_sizes(layer_sizes)
        hidden = len(self.layer_sizes) - 2
        self.activations: tuple[Activation, ...] = per_layer("activation", activation, hidden, get_activation)
        self.batch_norm: tuple[bool, ...] = per_layer(
            "batch_norm", batch_norm, hidden, partial(check_flag, "batch_norm")
        )
        self.dropout: tuple[float, ...] = per_layer("dropout", dropout, hidden, partial(check_rate, "dropout"))
        self.scale_shift = check_flag("scale_shift", scale_shift)
        self.batch_norm_momentum = check_number("batch_norm_momentum", batch_norm_momentum, maximum=1.0)
        self.batch_norm_epsilon = check_number("batch_norm_epsilon", batch_norm_epsilon, above=True)
        self.dtype = check_dtype(dtype)
        check_normal("batch_norm_epsilon", self.batch_norm_epsilon, self.dtype)
        self.bias_before_batch_norm = check_flag("bias_before_batch_norm", bias_before_batch_norm)
        largest = float(np.finfo(self.dtype).max)
        self.initial_bias = check_number("initial_bias", initial_bias, minimum=-largest, maximum=largest)
        loss_layer = get_loss(loss)
        loss_layer.check_outputs(self.layer_sizes[-1])
        self.output_activation = get_activation(output_activation, "output_activation")
        if loss_layer.has_probabilities and not isinstance(self.output_activation, Identity):
            raise InvalidValueError(
                f"output_activation: got {str(self.output_activation)!r} with loss={loss_layer.name!r}, which turns "
                "the outputs into probabilities itself. Expected 'identity', or loss='squared_error'."
            )
        if initializer is None:
            self.initializer = default_initializer(self.activations[0] if hidden else self.output_activation)
        else:
            self.initializer = get_initializer(initializer)
        self.seed = check_integer("seed", seed, 0, 2**64 - 1)
        self.precision = check_precision(precision, self.dtype)
        backend = select_backend(device, self.precision)
        self.device = backend.device_name if isinstance(device, Backend) else device
        self.metadata: dict[str, Any] = {}
        if self.precision in HALF_DTYPES and not backend.has_half:
            raise InvalidValueError(
                f"device: the backend {backend.name!r} has no precision={self.precision!r}. Expected 'cpu' or 'cuda'."
            )
        super().__init__(self._build_layers(), loss_layer, backend, self.dtype, self.precision)
        self._fill()

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change what the layers, which have their own, would not follow."""
        if vars(self).get(name, value) is not value and name not in _SETTABLE:
            raise InvalidValueError(
                f"{name}: a network keeps what it was made with. Expected numbers for network.set_parameters, rate or "
                "momentum of one of network.layers, or a new Network."
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.configuration.items())
        return f"Network({arguments}, device={self.device!r})"

    @in_turn
    def __reduce__(self) -> tuple[Callable[..., Network], tuple[Any, ...]]:
        # The objects themselves, not their names: copies keep an initialiser, activation or loss of the user's own.
        configuration = self.configuration | {
            "activation": self.activations,
            "output_activation": self.output_activation,
            "initializer": self.initializer,
            "loss": self.loss_layer.unbound(),
        }
        tensors = self.get_parameters() | self.get_state()
        return _copy, (configuration, self.device, tensors, self.steps, self.metadata, self.loss_scale_state)

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
                layers.append(Dropout(index, outputs, self.dropout[index - 1], self.seed))
        return layers

    def _fill(self) -> None:
        """Allocate the buffers and draw the initial weights."""
        self.allocate()
        self.reset_parameters()

    @in_turn
    def reset_parameters(self) -> None:
        """Draw the initial weights again, set all other numbers back, the loss scale too, and count from step 0.

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
            values[name] = draw(initializer, name, (spec.shape[0], spec.shape[1]), generator, self.dtype)
        state: dict[str, Array] = {
            name: np.full(spec.shape, spec.initial) for name, spec in self.state_layout.specs.items()
        }
        self.backend.copy(flat_values(self.layout, values, self.dtype), self.flat_parameters)
        self.backend.copy(flat_values(self.state_layout, state, self.dtype), self.flat_state)
        self.set_step(0)
        if self.loss_scale is not None:
            self.loss_scale.reset()

    @property
    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments, device aside, as JSON can hold them.

        Dropout's rates and batch norm's momentum, which may be set, are those of the layers now; the momentum is that
        of the first one.
        """
        initializer = str(self.initializer)
        rates = {layer.index: layer.rate for layer in self.layers if isinstance(layer, Dropout)}
        momenta = [layer.momentum for layer in self.layers if isinstance(layer, BatchNorm)]
        return {
            "layer_sizes": list(self.layer_sizes),
            "activation": [str(activation) for activation in self.activations],
            "output_activation": str(self.output_activation),
            "batch_norm": list(self.batch_norm),
            "scale_shift": self.scale_shift,
            "batch_norm_momentum": next(iter(momenta), self.batch_norm_momentum),
            "batch_norm_epsilon": self.batch_norm_epsilon,
            "bias_before_batch_norm": self.bias_before_batch_norm,
            "dropout": [rates.get(index, 0.0) for index in range(1, len(self.layer_sizes) - 1)],
            "initializer": initializer if initializer.split("(")[0] in INITIALIZERS else None,
            "initial_bias": self.initial_bias,
            "loss": str(self.loss_layer),
            "seed": self.seed,
            "dtype": self.dtype.name,
            "precision": self.precision,
        }

    def check_inputs(
        self, X: npt.ArrayLike, argument: str = "X", *, whole: bool = True, part: tuple[int, int] = ALL
    ) -> Array:
        """Return X as a finite, contiguous array (n, d) of the network's dtype, or raise.

        It is on the host, or, where X is in CUDA memory, on the network's device; X itself if it is such an array. With
        ``whole=False``, what is on the host keeps its dtype and layout, to be converted batch by batch, and no more
        than a ``part`` of it is looked at (:func:`gpunet.validation.check_features`). The columns of
        a DataFrame are put in the order of the names that ``gpunet train`` left in ``metadata``.
        """
        X = columns_in_order(argument, X, known_columns(self.metadata, self.layer_sizes[0]))
        with self._taken(argument, X) as values:
            return check_features(argument, values, self.layer_sizes[0], self.dtype, whole=whole, part=part)

    @property
    def classes(self) -> Array | None:
        """What :meth:`predict` returns for each output of a classifier, (c,); None for 0 to c - 1.

        ``metadata["class_labels"]`` holds them: :func:`gpunet.fit` learns them, and they may be set there.
        """
        return known_classes(self.metadata, self.layer_sizes[-1]) if self.is_classifier else None

    def check_targets(
        self, y: npt.ArrayLike, rows: int, argument: str = "y", *, whole: bool = True, part: tuple[int, int] = ALL
    ) -> Array:
        """Return y as places of classes, int32 (rows,), or as numbers (rows, c), whichever the loss takes, or raise.

        Numbers that a loss for labels takes are the probabilities of the classes, floats.

        On the host or on the device, as with :meth:`check_inputs`; labels other than 0 to c - 1 on the host.
        """
        outputs, classes = self.layer_sizes[-1], self.classes
        if classes is not None:
            y = self.on_host(argument, y)
        with self._taken(argument, y) as values:
            if self.is_classifier and are_probabilities(argument, values, outputs):
                return check_distributions(argument, values, rows, outputs, self.dtype, whole=whole, part=part)
            if self.is_classifier:
                return check_labels(argument, values, rows, outputs, classes)
            return check_targets(
                argument,
                values,
                rows,
                outputs,
                self.dtype,
                probabilities=self.has_probabilities,
                shared=self.loss_layer.shares_targets,
                whole=whole,
                part=part,
            )

    def learn_classes(self, y: npt.ArrayLike) -> bool:
        """Take the different labels of y for the network's classes, sorted, and return whether that was needed.

        It is not where they are 0 to c - 1, where ``metadata`` tell the classes, and where the network has been
        trained: its outputs stand for something then. Labels in CUDA memory are not read for this.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            Labels of several kinds; or more or fewer of them than outputs.
        """
        count = self.layer_sizes[-1]
        if not self.is_classifier or self.steps or (isinstance(self.metadata, Mapping) and CLASSES in self.metadata):
            return False
        return not is_on_cuda(y) and learn_classes(self.metadata, "y", y, count)

    def check_weights(
        self, weights: npt.ArrayLike, rows: int, argument: str = "sample_weight", *, some: bool = True
    ) -> Array:
        """Return weights as an array (rows,) of the network's dtype, each at least 0 and not all 0, or raise.

        On the host or on the device, as with :meth:`check_inputs`. With ``some=False``, all may be 0.
        """
        with self._taken(argument, weights) as values:
            return check_weights(argument, values, rows, self.dtype, some=some)

    @contextmanager
    def _taken(self, argument: str, values: npt.ArrayLike) -> Iterator[npt.ArrayLike | DeviceArray]:
        """Take an array in CUDA memory, to be checked there in this context; others come as they are."""
        if not is_on_cuda(values):
            yield values
            return
        with self.lock:
            array = self.backend.take(argument, values)
            with self.backend.array_module():
                yield DeviceArray(array)

    def on_host(self, argument: str, values: npt.ArrayLike) -> npt.ArrayLike:
        """Return a copy on the host of an array in CUDA memory, where the network is on CUDA too; others as they are.

        Raises
        ------
        InvalidTypeError
            The network is on another device; or the object does not give its values.
        """
        if not is_on_cuda(values):
            return values
        with self.lock:
            return self.backend.to_numpy(self.backend.take(argument, values))

    @in_turn
    def logits(self, X: npt.ArrayLike) -> Any:
        """Return the outputs for X in inference mode, a new array (n, c), whatever they are: also NaN or infinity.

        They are the scores before softmax or sigmoid, or, for squared error, the predictions.

        Parameters
        ----------
        X : array_like, (n, d)
            Finite numbers.

        Returns
        -------
        array, (n, c)
            Of the network's dtype, and of the library of X: PyTorch's for a tensor, CuPy's for what else is in CUDA
            memory, otherwise NumPy's. What is in CUDA memory stays there.

        Raises
        ------
        ShapeError, InvalidTypeError, NonFiniteError
        """
        return self.backend.give(self._outputs(X), X)

    def _outputs(self, X: npt.ArrayLike) -> Array:
        """Return the outputs for X in new memory where X is: on the device, or on the host."""
        inputs = self.check_inputs(X, whole=False)
        on_device = is_on_cuda(X)
        outputs = (self.backend.empty if on_device else np.empty)((inputs.shape[0], self.layer_sizes[-1]), self.dtype)
        with self.backend.working(self.inference_work(inputs.shape[0])):
            for start in range(0, inputs.shape[0], _PREDICTION_ROWS):
                rows = slice(start, start + _PREDICTION_ROWS)
                here = inputs[rows] if on_device else self.backend.upload(inputs[rows], self.dtype)
                found = self.forward(here)
                if on_device:
                    self.backend.copy(found, outputs[rows])
                else:
                    outputs[rows] = self.backend.to_numpy(found)
        return outputs

    @in_turn
    def predict_proba(self, X: npt.ArrayLike) -> Any:
        """Return the probabilities for X, in inference mode.

        Parameters
        ----------
        X : array_like, (n, d)

        Returns
        -------
        array, (n, c)
            Of the network's dtype, and of the library of X, as in :meth:`logits`. Softmax: those of the classes, rows
            sum to 1. Sigmoid: those of each label.

        Raises
        ------
        InvalidValueError
            The network was made for squared error.
        ShapeError, InvalidTypeError, NonFiniteError
            X does not fit the network; or an output is NaN or infinite, as in :meth:`predict`.
        """
        if not self.has_probabilities:
            raise InvalidValueError(f"predict_proba: a network with loss={self.loss!r} has no probabilities.")
        outputs = self.finite_outputs(X)
        with self.backend.array_module():
            probabilities = self.loss_layer.probabilities(outputs)
        return self.backend.give(probabilities, X)

    @in_turn
    def predict(self, X: npt.ArrayLike) -> Any:
        """Return labels, or the outputs of a squared-error network, in inference mode.

        Parameters
        ----------
        X : array_like, (n, d)

        Returns
        -------
        array
            Of the library of X, as in :meth:`logits`. Softmax: the most probable label of each row, (n,): one of
            :attr:`classes`, int64 where they are None; text is always NumPy's. Sigmoid: 1 where a label's probability
            is above 1/2 and 0 elsewhere, int64 (n, c). Squared error: numbers of the network's dtype, (n, c), or (n,)
            for one output.

        Raises
        ------
        ShapeError, InvalidTypeError
            X does not fit the network.
        NonFiniteError
            X is not finite; or an output is NaN or infinite, which no label and no number stands for: the message has
            the first such row and says whether a parameter is the cause. :meth:`logits` returns such outputs.
        """
        outputs = self.finite_outputs(X)
        with self.backend.array_module():
            predictions = self.loss_layer.predict(outputs)
            classes = self.classes
            if classes is not None and classes.dtype.kind == "U":
                return classes[self.backend.to_numpy(predictions)]
            if classes is not None:
                on_device = is_on_cuda(X)
                predictions = np.take(self.backend.asarray(classes) if on_device else classes, predictions)
        return self.backend.give(predictions, X)

    @in_turn
    def finite_logits(self, X: npt.ArrayLike) -> Any:
        """Return :meth:`logits` if they are finite.

        Raises
        ------
        ShapeError, InvalidTypeError, NonFiniteError
            As in :meth:`predict`.
        """
        return self.backend.give(self.finite_outputs(X), X)

    @in_turn
    def finite_outputs(self, X: npt.ArrayLike) -> Array:
        """Return :meth:`finite_logits` where X is, for expressions within the backend's ``array_module``."""
        with np.errstate(over="ignore", invalid="ignore"):  # told with its row instead
            outputs = self._outputs(X)
        with self.backend.array_module():
            wrong = first(~np.isfinite(outputs))
            if wrong is None:
                return outputs
            found = element(outputs, wrong)
        cause = "This row is too large for the network"
        if not self.is_finite():
            row = self.check_inputs(X, whole=False)[wrong[0] : wrong[0] + 1]
            on_device = row if is_on_cuda(X) else self.backend.upload(row, self.dtype)
            cause = f"Not finite in the network: {self.first_non_finite(on_device)}"
        raise NonFiniteError(f"X: the network's output for row {wrong[0]} is {found}. {cause}.", wrong[0])

    @in_turn
    def loss_and_gradients(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        l2: float = 0.0,
        sample_weight: npt.ArrayLike | None = None,
        input_gradient: bool = False,
    ) -> tuple[float, dict[str, Any]]:
        """Return J = sum_i w_i l_i / sum_i w_i + l2 sum_i ||W_i||^2 and its gradients, for reading and checking.

        Runs in training mode, as a step of ``fit`` would on this batch, but leaves parameters, running averages and
        the step count as they were.

        Parameters
        ----------
        X : array_like, (n, d)
        y : array_like
            See :func:`gpunet.fit`.
        l2 : float
            The lecture's lambda; the gradient of the term is 2 l2 W_i.
        sample_weight : array_like, (n,), or None
            At least 0, not all 0.
        input_gradient : bool
            Whether to add ``"X"``, the gradient with respect to the input.

        Returns
        -------
        float, dict of str to array
            New arrays with the parameters' names and shapes, of the library of X, as in :meth:`logits`.

        Raises
        ------
        ShapeError, InvalidTypeError, InvalidValueError, NonFiniteError
            The data do not fit the network, or one row with batch norm.
        """
        inputs = self.check_inputs(X)
        rows = inputs.shape[0]
        if rows < self.minimum_batch:
            raise ShapeError(f"X: got 1 row. Expected at least {self.minimum_batch}: batch norm needs a batch.")
        targets = self.backend.asarray(self.check_targets(y, rows))
        l2 = check_number("l2", l2)
        input_gradient = check_flag("input_gradient", input_gradient)
        weights = None
        if sample_weight is not None:
            weights = self.backend.asarray(self.check_weights(sample_weight, rows))

        with self.kept_averages(), self.kept_loss_scale():
            while True:
                gradient = self.differentiate(self.backend.asarray(inputs), targets, weights, input_gradient)
                self.unscale_gradients()
                if self.loss_scale is None or not self.loss_scale.is_too_large(self.loss_layer.value):
                    break
            found = self.gradients | ({} if gradient is None or not input_gradient else {"X": self._widened(gradient)})
        cost = float(self.backend.to_numpy(self.loss_layer.value)[0]) + self.penalty(l2)
        gradients = {}
        for name, values in found.items():
            with self.backend.array_module():
                if l2 and name in self.parameters and self.layout.specs[name].is_weight:
                    values = self.backend.asarray(values + 2 * l2 * self.parameters[name])
            if not is_on_cuda(X):
                values = np.array(self.backend.to_numpy(values))
            gradients[name] = self.backend.give(values, X)
        return cost, gradients

    def _widened(self, gradient: Array) -> Array:
        """Return the gradient with respect to the input, (n, d), on the device, in the network's dtype."""
        if not is_half(gradient):
            return gradient
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value
        with self.backend.array_module() as xp:
            return self.backend.asarray(widen(xp, gradient)[:, : self.layer_sizes[0]] / np.float32(scale))

    @in_turn
    def penalty(self, l2: float) -> float:
        """Return l2 sum_i ||W_i||^2."""
        if not l2:
            return 0.0
        weights = self.backend.to_numpy(self.flat_parameters[: self.layout.weight_count])
        return l2 * float(np.dot(weights, weights))

    @in_turn
    def get_parameters(self) -> dict[str, Array]:
        """Return copies of the parameters on the host."""
        return {name: self.backend.to_numpy(view).copy() for name, view in self.parameters.items()}

    @in_turn
    def get_state(self) -> dict[str, Array]:
        """Return copies of the running averages on the host."""
        return {name: self.backend.to_numpy(view).copy() for name, view in self.state.items()}

    @in_turn
    def set_parameters(self, values: Mapping[str, npt.ArrayLike]) -> None:
        """Set parameters and running averages by name; names that are left out keep their values.

        Raises
        ------
        InvalidValueError
            A name that the network does not have.
        ShapeError, NonFiniteError
            A value of another shape, or not finite. Nothing has been set then.
        InvalidTypeError
            Not a mapping; or a value that is no array of real numbers, or has masked ones.
        """
        views = self.parameters | self.state
        for name, array in self.check_values(values).items():
            self.backend.copy(array, views[name])

    def check_values(self, values: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Return what :meth:`set_parameters` would set, as copies of the network's dtype, or raise as it does."""
        if not isinstance(values, Mapping):
            raise InvalidTypeError(f"values: got {type(values).__name__}. Expected a mapping of names to arrays.")
        shapes = self.shapes
        for name in values:
            if name not in shapes:
                raise unknown_name("values", name, shapes)
        return {
            name: check_parameter(name, self.on_host(name, value), shapes[name], self.dtype)
            for name, value in values.items()
        }

    @in_turn
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write configuration, parameters, running averages, steps and metadata; :func:`gpunet.load` reads them back.

        Parameters
        ----------
        path : path
            Ends in ``.safetensors`` (needs that package) or ``.npz``. Missing folders are created; an older file is
            replaced at once or not at all.

        Returns
        -------
        Path

        Raises
        ------
        InvalidValueError, MissingDependencyError, OSError
            See ``gpunet.serialization.write_tensors``. Of an activation and a loss of the user's own the names are
            written; an initialiser of the user's own is left out.
        InvalidTypeError, InvalidValueError
            The metadata are no dictionary, or hold what JSON cannot.
        """
        check_json("metadata", self.metadata)
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "network": self.configuration,
            "steps": self.steps,
            "loss_scale": self.loss_scale_state,
            "metadata": self.metadata,
        }
        return write_tensors(path, self.get_parameters() | self.get_state(), header)


def check_network(network: Any) -> Network:
    """Return ``network`` if it is one, or raise InvalidTypeError."""
    if not isinstance(network, Network):
        raise InvalidTypeError(f"network: got {type(network).__name__}. Expected a gpunet.Network.")
    return network


def on_network(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function run that takes a network first if it does get one, and while it holds the network's lock."""

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with check_network(args[0] if args else kwargs.get("network")).lock:
            return function(*args, **kwargs)

    return run


class EmptyNetwork(Network):
    """A network without buffers: its shapes are known before anything is allocated, and no weights are drawn."""

    def _fill(self) -> None:
        """Leave that to :meth:`filled`."""

    def filled(
        self,
        tensors: Mapping[str, Array],
        steps: int,
        metadata: dict[str, Any],
        loss_scale: Mapping[str, Any] | None = None,
    ) -> Network:
        """Allocate the buffers, copy these parameters and running averages into them, and be a network."""
        self.allocate()
        for name, view in (self.parameters | self.state).items():
            self.backend.copy(tensors[name], view)
        self.set_step(steps)
        if self.loss_scale is not None and loss_scale is not None:
            self.loss_scale.restore(loss_scale)
        self.metadata = metadata
        self.__class__ = Network  # type: ignore[assignment]
        return self


def _copy(
    configuration: dict[str, Any],
    device: str,
    tensors: dict[str, Array],
    steps: int,
    metadata: dict[str, Any],
    loss_scale: dict[str, Any] | None = None,
) -> Network:
    """Return a network with these parameters, which may be NaN: it is a copy."""
    return EmptyNetwork(**configuration, device=device).filled(tensors, steps, metadata, loss_scale)

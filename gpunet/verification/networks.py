"""What whole networks do: steps beside the CPU's, recorded steps, two networks at once, memory that runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gpunet.backends import Backend
from gpunet.backends.half import HALF_DTYPES
from gpunet.backends.switches import CUDA_GRAPH
from gpunet.network import Network
from gpunet.optimizers import SGD, Adam, AdamW, Optimizer
from gpunet.schedules import CosineRate, CyclicalRate
from gpunet.training import Callback, Run, WeightAverage, fit
from gpunet.verification.check import Check
from gpunet.verification.operation import Difference, difference
from gpunet.verification.storage import STORAGES, Array
from gpunet.verification.subject import Cuda, Subject

# Units in the last place that rounding grows to over 20 steps; a wrong mask, rate or row makes thousands of it.
GROWTH = 128
FLOAT32_ROUNDING = GROWTH * float(np.finfo(np.float32).eps)
# Five batches, the last of them smaller: two batch sizes in each epoch.
ROWS, BATCH, INPUTS, CLASSES, EPOCHS = 70, 16, 13, 5, 4
# More than any device and any address space has; and a batch whose layer is larger than any device's memory.
IMPOSSIBLE_BYTES = 2**50
Results = dict[str, Array]


@dataclass(frozen=True)
class Training:
    """A network and how it is trained.

    Attributes
    ----------
    name : str
    network : mapping
        Arguments of :class:`gpunet.Network`.
    optimizer : callable
        Returns a new one.
    dtype : str
    precision : str
    update : mapping
        Arguments of :func:`gpunet.fit` that say what an update is.
    """

    name: str
    network: Mapping[str, Any]
    optimizer: Callable[[], Optimizer]
    dtype: str = "float32"
    precision: str = "float32"
    update: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The type of its numbers, in a word."""
        return self.dtype if self.precision == "float32" else self.precision

    @property
    def rounding(self) -> float:
        """How far rounding may take the losses of 20 steps, relative to them; parameters ten times as far."""
        if self.precision not in HALF_DTYPES:
            return GROWTH * float(np.finfo(self.dtype).eps)
        # Sums in another order now and then give a neighbouring half-precision number, one among many of a batch.
        return next(storage.rounding for storage in STORAGES if storage.name == self.precision) / 4

    @property
    def arguments(self) -> dict[str, Any]:
        """Of :class:`gpunet.Network`."""
        return {**self.network, "dtype": self.dtype, "precision": self.precision}

    @property
    def loss(self) -> str:
        """The network's."""
        return str(self.network.get("loss", "softmax_cross_entropy"))


def _sgd() -> Optimizer:
    return SGD(CyclicalRate(0.01, 0.1, 7), momentum=0.9, nesterov=True)


BATCH_NORM: dict[str, Any] = {"batch_norm": True, "dropout": [0.3, 0.0], "activation": ["relu", "tanh"]}
PLAIN: dict[str, Any] = {"batch_norm": False, "dropout": [0.0, 0.5], "activation": ["leaky_relu(0.1)", "sigmoid"]}
MIXED: dict[str, Any] = {"batch_norm": [True, False], "scale_shift": False, "activation": ["elu(0.5)", "silu"]}
SQUARED: dict[str, Any] = {"loss": "squared_error", "output_activation": "sigmoid"}
QUANTILES = f"quantile({', '.join(str(round((j + 1) / (CLASSES + 1), 3)) for j in range(CLASSES))})"
# Adam in float64 only: it divides by the root of a moment, which turns the rounding of gradients near 0 into steps.
TRAININGS = (
    *(
        Training(f"{name}, SGD with momentum", network, _sgd, dtype)
        for dtype in ("float32", "float64")
        for name, network in (("batch norm and dropout", BATCH_NORM), ("no batch norm", PLAIN), ("mixed", MIXED))
    ),
    Training("batch norm and dropout, Adam", BATCH_NORM, lambda: Adam(CosineRate(0.01, 20)), "float64"),
    Training("batch norm and dropout, AdamW", BATCH_NORM, lambda: AdamW(0.01, weight_decay=0.1), "float64"),
    Training(
        "batch norm and dropout, averaged, two batches an update",
        BATCH_NORM,
        lambda: Adam(CosineRate(0.01, 12)),
        "float64",
        update={"accumulate": 2, "average": WeightAverage(0.7)},
    ),
    Training("squared error", MIXED | SQUARED, _sgd, "float64"),
    Training("sigmoid cross-entropy", BATCH_NORM | {"loss": "sigmoid_cross_entropy"}, _sgd),
    Training("Huber's loss", MIXED | {"loss": "huber(0.3)"}, _sgd),
    Training("quantiles", BATCH_NORM | {"loss": QUANTILES}, _sgd),
    *(
        Training(f"{name}, SGD with momentum", network, _sgd, precision=precision)
        for precision in HALF_DTYPES
        for name, network in (("batch norm and dropout", BATCH_NORM), ("no batch norm", PLAIN), ("mixed", MIXED))
    ),
)


class _Watch(Callback):
    """Looks on after every step, so that each is recorded by itself."""

    def on_step_end(self, run: Run) -> None:
        return


def problem(training: Training) -> tuple[Array, Array, Array]:
    """Return inputs, targets and weights."""
    rng = np.random.default_rng(0)
    X, weights = rng.standard_normal((ROWS, INPUTS)), rng.uniform(0.5, 1.5, ROWS)
    if training.loss == "softmax_cross_entropy":
        return X, rng.integers(0, CLASSES, ROWS), weights
    return X, rng.uniform(0, 1, (ROWS, CLASSES)), weights


def train(
    backend: Backend,
    training: Training,
    sizes: tuple[int, ...] = (INPUTS, 33, 20, CLASSES),
    callbacks: tuple[Callback, ...] = (),
    data_on: str = "device",
) -> Results:
    """Train for 20 steps, and return the losses of all epochs, the outputs, parameters and running averages."""
    X, y, weights = problem(training)
    network = Network(sizes, seed=3, device=backend, **training.arguments)
    history = fit(
        network,
        X,
        y,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=training.optimizer(),
        l2=1e-3,
        clip_norm=0.7,
        sample_weight=weights,
        callbacks=callbacks,
        data_on=data_on,
        **training.update,
    )
    return {"losses": np.array(history["loss"]), **_results(network, X)}


def _results(network: Network, X: Array) -> Results:
    return {"outputs": network.logits(X), **network.get_parameters(), **network.get_state()}


def agreement(found: Results, expected: Results, bound: float = FLOAT32_ROUNDING) -> Iterator[Difference]:
    """Yield how far the results of one run are from those of another, in units of what rounding grows to."""
    for name, values in expected.items():
        largest = max(1.0, float(np.abs(values).max()))
        yield difference(name, found[name], values, (1 if name == "losses" else 10) * bound * largest)


def beside(subject: Subject, training: Training) -> Iterator[Difference]:
    """Yield how far 20 steps are from those of the CPU."""
    found, expected = subject.for_network(training.precision), subject.beside(training.precision)
    return agreement(train(found, training), train(expected, training), training.rounding)


def recorded(subject: Subject, training: Training) -> Iterator[Difference]:
    """Yield how far steps that are recorded and replayed are from the same steps, one operation at a time."""
    with subject.turned_off(CUDA_GRAPH):
        expected = train(subject.for_network(training.precision), training)
    for callbacks in ((), (_Watch(),)):  # several steps at once, and one by one
        found = train(subject.for_network(training.precision), training, callbacks=callbacks)
        yield from agreement(found, expected, training.rounding)


def fed(subject: Subject) -> Iterator[Difference]:
    """Yield how far runs whose data stay on the host are from the same runs with them on the device."""
    for training in (TRAININGS[0], TRAININGS[8]):  # labels, numbers
        found, expected = (train(subject.for_network(), training, data_on=data_on) for data_on in ("host", "device"))
        yield from agreement(found, expected, training.rounding)


def in_one_launch(subject: Cuda) -> Iterator[Difference]:
    """Yield how far steps whose pass is one launch are from those operation by operation."""
    backend, other = subject.for_network(), subject.for_network()
    backend.has_narrow_passes, other.has_narrow_passes = True, False
    yield from agreement(_Trained.alone(backend, NARROW), _Trained.alone(other, NARROW))


# --- two networks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Size:
    """A network, and its batch: kernels of the two ask for different shared memory."""

    layers: tuple[int, ...]
    batch: int


# Wide enough that batch norm asks for more shared memory than every block has, and the two for different sizes of it.
LARGE_PAIR = (_Size((40, 1000, 1000, 10), 512), _Size((40, 1000, 10), 256))
SMALL_PAIR = (_Size((6, 33, 20, 3), 48), _Size((9, 20, 4), 24))
# Two blocks.
NARROW = _Size((13, 33, 20, 5), 70)
ROUNDS, STEPS_OF_A_ROUND = 3, 4


class _Trained:
    """A network that is trained in rounds of a few steps."""

    def __init__(self, backend: Backend, size: _Size) -> None:
        rng = np.random.default_rng(size.batch)
        self._X = rng.standard_normal((STEPS_OF_A_ROUND * size.batch, size.layers[0]))
        self._y = rng.integers(0, size.layers[-1], len(self._X))
        self._network = Network(size.layers, seed=1, device=backend, batch_norm=True)
        self._optimizer = SGD(0.05, momentum=0.9)
        self._batch = size.batch

    def go_on(self) -> None:
        fit(
            self._network,
            self._X,
            self._y,
            epochs=1,
            batch_size=self._batch,
            optimizer=self._optimizer,
            l2=1e-4,
        )

    def results(self) -> Results:
        return _results(self._network, self._X)

    @classmethod
    def alone(cls, backend: Backend, size: _Size) -> Results:
        """Return the results of a network that is trained from first to last."""
        trained = cls(backend, size)
        for _ in range(ROUNDS):
            trained.go_on()
        return trained.results()


def in_turn(subject: Subject) -> Iterator[Difference]:
    """Yield how far two networks that are trained in turn are from the same networks alone."""
    pair = LARGE_PAIR if subject.is_large else SMALL_PAIR
    expected = [_Trained.alone(subject.for_network(), size) for size in pair]
    both = [_Trained(subject.for_network(), size) for size in pair]
    for _ in range(ROUNDS):
        for one in both:
            one.go_on()
    for one, alone in zip(both, expected, strict=True):
        yield from agreement(one.results(), alone)


def in_threads(subject: Subject) -> Iterator[Difference]:
    """Yield how far two networks that two threads train at once are from the same networks alone."""
    pair = LARGE_PAIR if subject.is_large else SMALL_PAIR
    expected = [_Trained.alone(subject.for_network(), size) for size in pair]
    found: dict[int, Results] = {}
    errors: list[BaseException] = []

    def work(place: int) -> None:
        try:
            found[place] = _Trained.alone(subject.for_network(), pair[place])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(pair))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    for place, alone in enumerate(expected):
        yield from agreement(found[place], alone)


# --- memory -----------------------------------------------------------------------------------------------------------


def out_of_memory(subject: Subject) -> Iterator[Difference]:
    """Yield whether memory that runs out is told, and how far a network that goes on afterwards is from the CPU's."""
    size = SMALL_PAIR[0]
    backend = subject.for_network()
    trained = _Trained(backend, size)
    trained.go_on()
    yield _is_told(lambda: backend.empty(IMPOSSIBLE_BYTES, np.uint8))
    if isinstance(subject, Cuda):
        side = 2**21 if subject.is_large else 2**12
        X, y = np.zeros((side, 1), np.float32), np.zeros(side, np.int64)
        wide = Network([1, side, 2], device=subject.for_network(), batch_norm=True)
        yield _is_told(lambda: fit(wide, X, y, epochs=1, batch_size=side))
        del wide
    for _ in range(1, ROUNDS):
        trained.go_on()
    yield from agreement(trained.results(), _Trained.alone(subject.beside(), size))


def _is_told(demand: Callable[[], object]) -> Difference:
    try:
        demand()
    except MemoryError:  # OutOfDeviceMemoryError is one
        return Difference("memory", 0.0)
    return Difference("memory", np.inf, "more memory than there is was not refused")


def checks(subject: Subject) -> Iterator[Check]:
    """Yield all of it."""
    for training in TRAININGS:
        yield Check(
            "20 training steps beside the CPU",
            training.kind,
            training.name,
            partial(beside, subject, training),
        )
    if isinstance(subject, Cuda) and subject.records:
        for training in (TRAININGS[0], TRAININGS[1], TRAININGS[6], TRAININGS[-1]):
            yield Check(
                "recorded steps, two batch sizes, changing rate",
                training.kind,
                training.name,
                partial(recorded, subject, training),
            )
    yield Check("data that stay on the host", "float32", "beside data on the device", partial(fed, subject))
    if isinstance(subject, Cuda):
        yield Check("steps in one launch", "float32", "", partial(in_one_launch, subject))
    yield Check("two networks", "float32", "in turn", partial(in_turn, subject))
    yield Check("two networks", "float32", "in two threads", partial(in_threads, subject))
    yield Check("memory that runs out", "float32", "told, and networks go on", partial(out_of_memory, subject))

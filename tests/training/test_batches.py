"""``fit(batches=...)``: what an iterable brings trains a network as the same batches from memory do."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import gpunet
from gpunet.batches import batch_slices
from gpunet.network import Network
from gpunet.training import loop, step, stream
from tests.backends.cuda.test_users_arrays import Machine
from tests.backends.cuda.test_users_arrays import machine as machine  # a fixture
from tests.backends.devices.test_planted_bugs import plant
from tests.emulation import EmulationError
from tests.helpers.recording import RecordingBackend
from tests.training.test_data_on_host import TARGETS, WEIGHTS, Calls, Epochs, X, Y, assert_same, epoch_of, result_of

SIZE = 16
Parts = tuple[Any, ...]


def cut(*arrays: Any, size: int = SIZE) -> list[Parts]:
    """Return the batches that fit takes of arrays in their order."""
    slices = batch_slices(len(arrays[0]), size, 2)
    return [tuple(array[rows] for array in arrays) for rows in slices]


@pytest.fixture(params=["cpu:numpy", "cpu:compiled", "cuda"])
def network_of(request: pytest.FixtureRequest, machine: Machine) -> Callable[..., Network]:
    """Return what makes a network of a kind."""
    if request.param == "cuda":
        return machine.network
    return lambda *sizes, **arguments: Network(sizes or (9, 12, 4), device=request.param, seed=1, **arguments)


def train(network: Network, **arguments: Any) -> dict[str, np.ndarray]:
    """Train for 3 epochs; ``optimizer`` is a function that makes one."""
    optimizer = arguments.pop("optimizer", gpunet.SGD)()
    return result_of(network, gpunet.fit(network, optimizer=optimizer, **({"epochs": 3, "l2": 1e-3} | arguments)))


RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[Any, ...]]] = {
    "labels": ({}, {}, (X, Y)),
    "float64": ({"dtype": "float64"}, {}, (X, Y)),
    "no batch norm, clipped": ({"batch_norm": False}, {"clip_norm": 0.5}, (X, Y)),
    "dropout and Adam": ({"dropout": 0.3}, {"optimizer": gpunet.Adam}, (X, Y)),
    "weights": ({}, {}, (X, Y, WEIGHTS)),
    "a batch without weight": ({}, {}, (X, Y, np.where(np.arange(101) < SIZE, 0, WEIGHTS))),
    "class weights": ({}, {"class_weight": {0: 3.0, 2: 0.5}}, (X, Y)),
    "both weights": ({}, {"class_weight": [1, 2, 3, 4]}, (X, Y, WEIGHTS)),
    "numbers": ({"loss": "squared_error"}, {}, (X, TARGETS)),
    "probabilities": ({"loss": "sigmoid_cross_entropy"}, {}, (X, TARGETS, WEIGHTS)),
    "integers": ({}, {}, (np.round(X * 8).astype(np.int8), Y.astype(np.uint8))),
    "plain": ({}, {"class_weight": [1, 2, 3, 4]}, (X.astype(np.float32), Y.astype(np.uint64))),
    "accumulated and averaged": ({}, {"accumulate": 3, "average": gpunet.WeightAverage(0.9)}, (X, Y)),
    "validation": ({}, {"validation": (X[:50], Y[:50])}, (X, Y)),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_same_batches_from_memory_give_the_same_bits(network_of: Callable[..., Network], run: str) -> None:
    kind, arguments, arrays = RUNS[run]
    found = train(network_of(**kind), batches=cut(*arrays), **arguments)
    in_memory = dict(zip(("X", "y", "sample_weight"), arrays, strict=False))
    expected = train(network_of(**kind), **in_memory, batch_size=SIZE, shuffle=False, **arguments)
    assert_same(found, expected)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_half_precision(machine: Machine, precision: str) -> None:
    found = train(machine.network(precision=precision), batches=cut(X, Y))
    expected = train(machine.network(precision=precision), X=X, y=Y, batch_size=SIZE, shuffle=False)
    assert_same(found, expected)


@pytest.mark.parametrize("most", [1, 3, 16, 32])
def test_an_epoch_of_more_steps_than_there_is_room_for(
    network_of: Callable[..., Network], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone through in parts; windows of good weights, losses and schedules go on across them."""
    arguments: dict[str, Any] = {"optimizer": lambda: gpunet.SGD(gpunet.CosineRate(0.1, 110), momentum=0.9)}
    found = []
    for room in (most, 256):
        with monkeypatch.context() as patched:
            patched.setattr(loop, "LOOK_EVERY", room)
            found.append(train(network_of(), batches=cut(X, Y, size=3), **arguments))
    assert_same(*found)
    assert_same(found[0], train(network_of(), X=X, y=Y, batch_size=3, shuffle=False, **arguments))


def test_batches_may_have_any_lengths(network_of: Callable[..., Network]) -> None:
    """Each is one step of its own rows, whatever the lengths before; buffers grow."""
    lengths = [5, 30, 2, 30, 34]
    stops = np.cumsum(lengths)
    batches = [(X[stop - rows : stop], Y[stop - rows : stop]) for rows, stop in zip(lengths, stops, strict=True)]
    network, one_by_one = network_of(), network_of()
    history = gpunet.fit(network, batches=batches, epochs=2, optimizer=gpunet.SGD(0.05))
    losses = []
    for features, labels in batches * 2:
        losses += gpunet.fit(one_by_one, features, labels, epochs=1, shuffle=False, optimizer=gpunet.SGD(0.05))["loss"]
    for name, value in one_by_one.get_parameters().items():
        np.testing.assert_array_equal(network.get_parameters()[name], value, err_msg=name)
    for epoch, part in zip(history, (losses[:5], losses[5:]), strict=True):
        assert epoch.loss == pytest.approx(np.average(part, weights=lengths), rel=1e-6)
    assert [record.step for record in history] == [5, 10]


def test_recorded_steps_read_what_is_delivered() -> None:
    found = train(Network([9, 12, 4], device=RecordingBackend(), seed=1), batches=cut(X, Y, WEIGHTS))
    expected = train(Network([9, 12, 4], device="cpu:numpy", seed=1), batches=cut(X, Y, WEIGHTS))
    assert_same(found, expected)


# --- what may be given ------------------------------------------------------------------------------------------------


def numbered(epoch: int) -> Iterator[Parts]:
    """Yield the batches of an epoch in the order of that epoch, all in the memory of one."""
    order = np.random.default_rng(epoch).permutation(len(X))
    features, labels = np.empty((SIZE, 9), np.float32), np.empty(SIZE, np.int32)
    for rows in batch_slices(len(X), SIZE, 2):
        count = rows.stop - rows.start
        features[:count], labels[:count] = X[order[rows]], Y[order[rows]]
        yield features[:count], labels[:count]


class Again:
    """Can be gone through again, and has no length."""

    def __init__(self, batches: list[Parts]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Parts]:
        return iter(self.batches)


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param(lambda: cut(X, Y), id="list"),
        pytest.param(lambda: [list(parts) for parts in cut(X.tolist(), Y.tolist())], id="lists"),
        pytest.param(lambda: Again(cut(X, Y)), id="iterable"),
        pytest.param(lambda: [(pandas.DataFrame(a), pandas.Series(b)) for a, b in cut(X, Y)], id="frames"),
        pytest.param(lambda: lambda epoch: cut(X, Y), id="function"),
        pytest.param(lambda: lambda epoch: iter(cut(X, Y)), id="function of iterators"),
    ],
)
def test_kinds_of_iterables(batches: Callable[[], Any]) -> None:
    network = Network([9, 12, 4], device="cpu:numpy", seed=1)
    expected = train(Network([9, 12, 4], device="cpu:numpy", seed=1), X=X, y=Y, batch_size=SIZE, shuffle=False)
    assert_same(train(network, batches=batches()), expected)


def test_a_function_gets_the_epoch_and_its_batches_may_share_memory(network_of: Callable[..., Network]) -> None:
    """The next batch is asked for when nobody reads the last one any more."""
    whole = [[tuple(np.copy(part) for part in parts) for parts in numbered(epoch)] for epoch in (1, 2, 3)]
    assert_same(train(network_of(), batches=numbered), train(network_of(), batches=lambda epoch: whole[epoch - 1]))


def test_a_generator_is_good_for_one_epoch() -> None:
    network = Network([9, 12, 4], device="cpu:numpy", seed=1)
    train(network, batches=numbered(1), epochs=1)
    steps = network.steps
    with pytest.raises(gpunet.InvalidValueError, match="batches: got a generator, which ends after one epoch, for 2"):
        train(network, batches=numbered(1), epochs=2)
    assert network.steps == steps


def test_an_epoch_without_batches() -> None:
    network = Network([9, 12, 4], device="cpu:numpy", seed=1)
    with pytest.raises(gpunet.InvalidValueError, match="batches: epoch 1 has none"):
        train(network, batches=[])
    assert network.steps == 0
    with pytest.raises(gpunet.InvalidValueError, match="batches: epoch 2 has none"):
        train(network, batches=lambda epoch: cut(X, Y) if epoch == 1 else [])
    assert network.steps == 7


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, gpunet.InvalidTypeError, r"X: got None\. Expected X and y, or batches="),
    "no targets": ({"X": X}, gpunet.InvalidTypeError, r"y: got None\. Expected X and y, or batches="),
    "both": ({"X": X, "y": Y, "batches": cut(X, Y)}, gpunet.InvalidValueError, "X: is given beside batches="),
    "weights of all": (
        {"batches": cut(X, Y), "sample_weight": WEIGHTS},
        gpunet.InvalidValueError,
        "sample_weight: is given beside batches=",
    ),
    "a number": ({"batches": 3}, gpunet.InvalidTypeError, "batches: got 3. Expected an iterable of"),
    "arrays": (
        {"batches": (X, Y)},
        gpunet.InvalidTypeError,
        r"batches, batch 1 of epoch 1: got array.*Expected \(X, y\)",
    ),
    "four parts": (
        {"batches": [(X, Y, WEIGHTS, 1)]},
        gpunet.InvalidTypeError,
        r"batches, batch 1 of epoch 1: got .*Expected \(X, y\) or \(X, y, sample_weight\)",
    ),
    "columns": (
        {"batches": [(X[:, :5], Y)]},
        gpunet.ShapeError,
        r"batches, batch 1 of epoch 1: X: got 5 columns\. Expected 9",
    ),
    "names that nobody told": (
        {"batches": cut(X, Y.astype(str))},
        gpunet.InvalidTypeError,
        r"epoch 1: y: got dtype <U\d+\. Expected integer .* told by network\.metadata\['class_labels'\] = \[...\]",
    ),
    "balanced": (
        {"batches": cut(X, Y), "class_weight": "balanced"},
        gpunet.InvalidValueError,
        "class_weight: 'balanced' counts all labels",
    ),
    "early stopping": (
        {"batches": cut(X, Y), "early_stopping": gpunet.EarlyStopping()},
        gpunet.InvalidValueError,
        "early_stopping: needs validation",
    ),
    "two validations": (
        {"batches": cut(X, Y), "validation": (X, Y), "validation_batches": cut(X, Y)},
        gpunet.InvalidValueError,
        "validation_batches: are given beside validation=",
    ),
    "validation that ends": (
        {"batches": cut(X, Y), "validation_batches": iter(cut(X, Y))},
        gpunet.InvalidValueError,
        "validation_batches: got a list_iterator, which ends after one epoch",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_nothing_changes_where_the_arguments_are_wrong(case: str) -> None:
    arguments, error, message = WRONG[case]
    network = Network([9, 12, 4], device="cpu:numpy", seed=1)
    before = network.get_parameters()
    with pytest.raises(error, match=message):
        train(network, **arguments)
    assert network.steps == 0
    assert_same(network.get_parameters(), before)


def spoilt(number: int, *parts: Any) -> list[Parts]:
    batches = cut(X, Y)
    batches[number - 1] = parts
    return batches


LATER: dict[str, tuple[Parts, type[Exception], str]] = {
    "not finite": (
        (np.where(np.arange(45).reshape(5, 9) == 13, np.nan, 1), Y[:5]),
        gpunet.NonFiniteError,
        "X: nan in row 1, column 4",
    ),
    "too large": ((np.full((5, 9), 1e300), Y[:5]), gpunet.NonFiniteError, "X: 1e[+]300 in row 0, column 0, too large"),
    "labels": ((X[:5], [0, 1, 4, 2, 3]), gpunet.InvalidValueError, "y: label 4 in row 2 is out of range"),
    "rows": ((X[:5], Y[:4]), gpunet.ShapeError, "y: got 4 labels for 5 rows"),
    "one row": ((X[:1], Y[:1]), gpunet.ShapeError, "X: got 1 row. Expected at least 2: batch norm needs a batch"),
    "no rows": ((X[:0], Y[:0]), gpunet.ShapeError, "X: got no rows"),
    "weights at last": ((X[:5], Y[:5], WEIGHTS[:5]), gpunet.InvalidValueError, "sample_weight: got some, unlike"),
    "a negative weight": (
        (X[:5], Y[:5], -WEIGHTS[:5]),
        gpunet.InvalidValueError,
        "sample_weight: weight .* is negative",
    ),
    "nothing": ((), gpunet.InvalidTypeError, "got ()"),
    "plain, not finite": (
        (np.where(np.arange(45).reshape(5, 9) == 13, np.inf, np.float32(1)), Y[:5].astype(np.int32)),
        gpunet.NonFiniteError,
        "X: inf in row 1, column 4",
    ),
    "plain, columns": ((X[:5, :8].astype(np.float32), Y[:5]), gpunet.ShapeError, "X: got 8 columns"),
    "plain, labels": (
        (X[:5].astype(np.float32), np.array([0, 1, -1, 2, 3])),
        gpunet.InvalidValueError,
        "y: label -1 in row 2 is out of range",
    ),
}


@pytest.mark.parametrize("case", LATER)
def test_a_wrong_batch_is_named(case: str, network_of: Callable[..., Network]) -> None:
    """The network has the weights of the steps before, and can go on."""
    parts, error, message = LATER[case]
    network = network_of()
    with pytest.raises(error, match=f"batches, batch 4 of epoch 1: .*{message}") as caught:
        train(network, batches=spoilt(4, *parts))
    assert getattr(caught.value, "row", None) in (None, 0, 1)
    assert network.steps == 3
    expected = network_of()
    train(expected, batches=cut(X, Y)[:3], epochs=1)
    for name, value in expected.get_parameters().items():
        np.testing.assert_array_equal(network.get_parameters()[name], value)
    train(network, batches=cut(X, Y))


def test_batches_in_cuda_memory_are_refused(machine: Machine) -> None:
    with pytest.raises(gpunet.InvalidTypeError, match="batch 1 of epoch 1: X: is in CUDA memory"):
        train(machine.network(), batches=[(machine.late(X), Y)])


def test_an_error_of_the_iterable_comes_through() -> None:
    closed = []

    def breaks(epoch: int) -> Iterator[Parts]:
        try:
            yield from cut(X, Y)[:2]
            raise OSError("the disk is gone")
        finally:
            closed.append(epoch)

    network = Network([9, 12, 4], device="cpu:numpy", seed=1)
    with pytest.raises(OSError, match="the disk is gone"):
        train(network, batches=breaks)
    assert network.steps == 2

    class Stops(gpunet.Callback):
        def on_step_end(self, run: gpunet.Run) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network, batches=breaks, callbacks=[Stops()])
    assert closed == [1, 1]


# --- what a run promises ----------------------------------------------------------------------------------------------


class Seen(gpunet.Callback):
    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int | None]] = []

    def on_step_end(self, run: gpunet.Run) -> None:
        self.steps.append((run.epoch, run.step_in_epoch, run.steps_per_epoch))


def test_callbacks_see_each_step(network_of: Callable[..., Network], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", 4)
    for batches, length in ((cut(X, Y), 7), (Again(cut(X, Y)), None)):
        seen = Seen()
        train(network_of(), batches=batches, epochs=2, callbacks=[seen])
        assert seen.steps == [(epoch, number, length) for epoch in (1, 2) for number in range(1, 8)]


def test_the_users_code_runs_while_nobody_holds_the_lock(network_of: Callable[..., Network]) -> None:
    """Another thread may use the network for it: a batch of what the network finds difficult."""
    network = network_of()
    answers: list[Any] = []

    def asks(epoch: int) -> Iterator[Parts]:
        for parts in cut(X, Y):
            thread = threading.Thread(target=lambda parts=parts: answers.append(network.predict(parts[0])))
            thread.start()
            thread.join(60)
            yield parts

    gpunet.fit(network, batches=asks, validation_batches=asks, epochs=1)
    assert len(answers) == 14


def test_validation_batches(network_of: Callable[..., Network]) -> None:
    """Weights of rows count as those of one evaluation of them all; each epoch has batches of its own."""
    epochs = []

    def held_out(epoch: int) -> Iterator[Parts]:
        epochs.append(epoch)
        yield from cut(X, Y, WEIGHTS, size=40)

    network = network_of()
    history = gpunet.fit(network, batches=cut(X, Y), validation_batches=held_out, epochs=2)
    assert epochs == [1, 2]
    expected = gpunet.evaluate(network, X, Y, sample_weight=WEIGHTS)
    assert history["validation_loss"][-1] == pytest.approx(expected.loss, rel=1e-6)
    assert history["validation_accuracy"][-1] == pytest.approx(expected.accuracy, rel=1e-6)


def test_evaluation_of_batches(network_of: Callable[..., Network]) -> None:
    network = network_of()
    for arrays in ((X, Y), (X, Y, np.where(np.arange(101) < 30, 0, WEIGHTS))):
        expected = gpunet.evaluate(network, *arrays[:2], sample_weight=arrays[2] if len(arrays) > 2 else None)
        parts = cut(*arrays, size=30)
        for batches in (parts, iter(parts), {1: parts}.__getitem__):
            found = gpunet.evaluate(network, batches=batches)
            assert (found.loss, found.accuracy) == pytest.approx((expected.loss, expected.accuracy), rel=1e-6)
            assert found.rows == 101
    for batches, message in (
        ([], "batches: there is none"),
        ([(X, Y, 0 * WEIGHTS)], "batches: every weight is 0"),
        ([(X, Y), (X, Y + 1)], "batches, batch 2: y: label 4"),
    ):
        with pytest.raises(gpunet.InvalidValueError, match=message):
            gpunet.evaluate(network, batches=batches)
    with pytest.raises(gpunet.InvalidValueError, match="X: is given beside batches="):
        gpunet.evaluate(network, X, batches=[])


@pytest.mark.parametrize("batches", [numbered, cut(X, Y)], ids=["function", "list"])
def test_a_run_goes_on_from_its_checkpoint(batches: Any, network_of: Callable[..., Network], tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"validation_batches": cut(X, Y), "early_stopping": gpunet.EarlyStopping(patience=5)}
    stored = {"checkpoint": tmp_path / "run.npz", "batches": batches}
    train(network_of(), epochs=2, **stored, **arguments)
    found = train(network_of(), epochs=4, resume=True, **stored, **arguments)
    assert_same(found, train(network_of(), epochs=4, batches=batches, **arguments))
    asked: list[int] = []
    again = train(
        network_of(), epochs=4, resume=True, checkpoint=stored["checkpoint"], batches=asked.append, **arguments
    )
    assert_same(again, found)
    assert asked == []  # nothing is left to do


class Named(Again):
    fingerprint = "rows of March"


@pytest.mark.parametrize("names", [["d", "a", "c", "b"], [3, 0, 2, 5], [False, True]], ids=["text", "integers", "bool"])
def test_labels_of_any_kind(names: list[Any]) -> None:
    """The network has to know them: no batch has them all."""

    def network() -> Network:
        return Network([9, 12, len(names)], device="cpu:numpy", seed=1)

    places = Y % len(names)
    labels = np.array(names)[places]
    knows = network()
    knows.metadata["class_labels"] = names
    expected = train(network(), batches=cut(X, places), class_weight=[2, 1, 1, 1][: len(names)])
    assert_same(train(knows, batches=cut(X, labels), class_weight={names[0]: 2}), expected)
    assert gpunet.evaluate(knows, batches=cut(X, labels)) == gpunet.evaluate(knows, batches=cut(X, labels.tolist()))
    if labels.dtype.kind != "i":
        with pytest.raises(gpunet.InvalidTypeError, match="batch 1 of epoch 1: y: got dtype"):
            train(network(), batches=cut(X, labels))


def test_weights_may_not_begin_in_a_later_epoch() -> None:
    network = Network([9, 12, 4], device="cpu:numpy", seed=1)
    with pytest.raises(gpunet.InvalidValueError, match="batch 1 of epoch 2: sample_weight: got some, unlike"):
        train(network, batches=lambda epoch: cut(X, Y, WEIGHTS) if epoch > 1 else cut(X, Y))


def test_a_checkpoint_knows_whose_batches_these_are(tmp_path: Path) -> None:
    def network() -> Network:
        return Network([9, 12, 4], device="cpu:numpy", seed=1)

    stored: dict[str, Any] = {"checkpoint": tmp_path / "run.npz", "resume": True}
    train(network(), epochs=1, batches=Named(cut(X, Y)), **stored)
    train(network(), epochs=2, batches=Named(cut(X, Y)), **stored)
    other = Named(cut(X, Y))
    other.fingerprint = "rows of April"
    with pytest.raises(gpunet.InvalidValueError, match="of a run with another X"):
        train(network(), batches=other, **stored)
    with pytest.raises(gpunet.InvalidValueError, match="a run with rows='of batches='"):
        train(network(), X=X, y=Y, **stored)
    with pytest.raises(gpunet.InvalidValueError, match="of a run without class_weight"):
        train(network(), batches=Named(cut(X, Y)), class_weight=[1, 2, 1, 1], **stored)


def diverges(network: Network, **arguments: Any) -> gpunet.TrainingDivergedError:
    with pytest.raises(gpunet.TrainingDivergedError) as caught:
        train(network, optimizer=lambda: gpunet.SGD(10.0), **arguments)
    return caught.value


def test_divergence(network_of: Callable[..., Network], monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is named, and the weights put back that were good, also those of the part of the epoch before."""
    monkeypatch.setattr(loop, "LOOK_EVERY", 16)
    kind: dict[str, Any] = {"batch_norm": False, "loss": "squared_error"}
    found, expected = network_of(**kind), network_of(**kind)
    arrays = np.concatenate([X] * 4), np.concatenate([TARGETS] * 4)
    error = diverges(found, batches=cut(*arrays, size=5))
    other = diverges(expected, X=arrays[0], y=arrays[1], batch_size=5, shuffle=False)
    assert (error.epoch, error.step) == (other.epoch, other.step)
    assert found.steps == expected.steps
    assert_same(found.get_parameters(), expected.get_parameters())


# --- on the device ----------------------------------------------------------------------------------------------------


def test_the_next_batch_is_made_and_copied_while_the_device_works(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the same lane as data on the host; a step is one launch, and nobody waits but for a copy long made."""
    with monkeypatch.context() as patched:
        calls = Calls(patched, machine)
        counted = Epochs(calls)

        def brings(epoch: int) -> Iterator[Parts]:
            for parts in cut(X[:100], Y[:100], size=25):
                calls.made.append("ask")
                yield parts

        train(machine.network(), batches=brings, callbacks=[counted])
    made = counted.of_epochs[-1]
    in_order = [name for name in made if name not in ("copy", "wait")]
    last = in_order.index("synchronize")
    assert in_order[:last] == ["ask", "prepare", *["deliver", "step", "ask", "prepare"] * 3, "deliver", "step"]
    from_arrays = epoch_of(monkeypatch, machine, "host")
    assert [made.count(name) for name in ("wait", "synchronize")] == [
        from_arrays.count(name) for name in ("wait", "synchronize")
    ]


def test_no_more_than_a_batch_is_held(network_of: Callable[..., Network]) -> None:
    def brings(epoch: int) -> Iterator[Parts]:
        return ((np.full((64, 300), float(number)), np.arange(64) % 4) for number in range(100))

    network = network_of(300, 4, batch_norm=False)
    arguments: dict[str, Any] = {"batches": brings, "validation_batches": brings, "epochs": 1}
    train(network, **arguments)
    tracemalloc.start()
    train(network, **arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 64 * 300 * 8  # of a hundred batches


BUGS: dict[str, tuple[Any, str, str]] = {
    "the batch before": (step, "self._feed.sources = tuple(arrays)", "self._feed.sources = self._feed.sources"),
    "it is not prepared": (step, "        self._feed.prepare(slice(0, rows))\n", ""),
    "a row too few": (step, "self._feed.prepare(slice(0, rows))", "self._feed.prepare(slice(0, max(rows - 1, 1)))"),
    "buffers do not grow": (step, "if rows > self._rows:", "if self._rows < 0:"),
    "recordings go on with the old buffers": (step, "        self._recorded.clear()\n", ""),
    "losses of a part are lost": (loop, "self.earlier.append(", "len("),
    "the class weights": (stream, "if self._class_weights is not None", "if False"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", 4)
    batches = cut(X, Y, size=8)
    batches.insert(5, (X[40:70], Y[40:70]))

    def result() -> dict[str, np.ndarray]:
        network = machine.network()
        train(network, X=X, y=Y, batch_size=50, epochs=1)  # the network's own buffers are as large as any batch now
        return train(network, batches=batches, class_weight=[1, 2, 3, 4], epochs=2)

    expected = result()
    plant(monkeypatch, *BUGS[bug])
    try:
        found = result()
    except (gpunet.GpunetError, ValueError, IndexError, EmulationError):
        return
    with pytest.raises(AssertionError):
        assert_same(found, expected)

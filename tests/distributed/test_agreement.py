"""What ranks have to have in common, what ends all of them, and what they decide together."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.distributed import Ranks, one_rank
from gpunet.errors import (
    DistributedError,
    InUseError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    TrainingDivergedError,
)
from tests.helpers.threaded_ranks import run_ranks

RNG = np.random.default_rng(2)
X, Y = RNG.standard_normal((120, 5)), RNG.integers(0, 3, 120)


def network(seed: int = 1, **arguments: Any) -> gpunet.Network:
    return gpunet.Network([5, 6, 3], device="cpu:numpy", seed=seed, **arguments)


def fit(ranks: Ranks | None, made: gpunet.Network | None = None, **given: Any) -> gpunet.Network:
    made = made or network()
    arguments: dict[str, Any] = {"X": X, "y": Y, "epochs": 2, "batch_size": 30} | given
    gpunet.fit(made, distributed=ranks, **arguments)
    return made


def on_rank(number: int, ranks: Ranks, there: Any, elsewhere: Any) -> Any:
    return there if ranks.rank == number else elsewhere


@pytest.mark.parametrize("given", [0, -1, 2.5, "8", True])
def test_shards_are_a_positive_integer(given: Any) -> None:
    with pytest.raises((InvalidTypeError, InvalidValueError), match=r"^shards: "):
        one_rank(given)


@pytest.mark.parametrize(("size", "shards", "words"), [(3, 2, "more ranks than shards"), (2, 3, "unequal")])
def test_shards_are_a_multiple_of_the_ranks(size: int, shards: int, words: str) -> None:
    with pytest.raises(InvalidValueError, match=rf"shards: {shards} for {size} ranks, .*{words}.*multiple of {size}"):
        run_ranks(size, shards, lambda ranks: None)


def test_distributed_is_ranks() -> None:
    with pytest.raises(InvalidTypeError, match=r"^distributed: got 4\. Expected gpunet\.distributed\.mpi"):
        fit(4)  # type: ignore[arg-type]


def test_several_processes_that_train_alone_are_told_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpunet.backends.notices, "_said", set())
    fit(None)
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setenv("PMI_RANK", "1")
    fit(None)
    fit(one_rank(4))
    assert caplog.messages == []
    monkeypatch.setenv("PMI_RANK", "0")
    for _ in range(2):
        fit(None)
    (message,) = caplog.messages
    assert message.startswith(
        "each of the 4 processes that mpiexec has started trains alone: fit is given no distributed="
    )


DIFFERENT: list[tuple[str, str, Any]] = [
    ("a row of X", "X", lambda ranks: {"X": on_rank(1, ranks, np.where(np.arange(120) < 1, 9, X.T).T, X)}),
    ("a label", "y", lambda ranks: {"y": on_rank(1, ranks, np.append(Y[:-1], (Y[-1] + 1) % 3), Y)}),
    ("rows", "rows", lambda ranks: {"X": X[: on_rank(1, ranks, 100, 120)], "y": Y[: on_rank(1, ranks, 100, 120)]}),
    ("seed", "seed", lambda ranks: {"made": network(on_rank(1, ranks, 2, 1))}),
    ("weights", "weights", lambda ranks: {"made": trained(on_rank(1, ranks, 1, 0))}),
    ("activation", "activation", lambda ranks: {"made": network(activation=on_rank(1, ranks, "tanh", "relu"))}),
    ("dropout", "dropout", lambda ranks: {"made": network(dropout=on_rank(1, ranks, 0.1, 0.2))}),
    ("loss", "loss", lambda ranks: {"made": network(loss=f"softmax_cross_entropy({on_rank(1, ranks, 0.1, 0.2)})")}),
    ("metadata", "metadata", lambda ranks: {"made": described(on_rank(1, ranks, {"a": 1}, {"a": 1, "b": None}))}),
    ("more metadata", "metadata", lambda ranks: {"made": described(on_rank(1, ranks, {"a": 1, "b": None}, {"a": 1}))}),
    ("a value of metadata", "metadata['b']", lambda ranks: {"made": described({"a": 3 * [1], "b": {"c": ranks.rank}})}),
    ("batch size", "batch_size", lambda ranks: {"batch_size": on_rank(1, ranks, 20, 30)}),
    ("epochs", "epochs", lambda ranks: {"epochs": on_rank(1, ranks, 5, 2)}),
    ("l2", "l2", lambda ranks: {"l2": on_rank(1, ranks, 0.1, 0.0)}),
    ("optimizer", "optimizer", lambda ranks: {"optimizer": gpunet.SGD(0.1, momentum=on_rank(1, ranks, 0.5, 0.9))}),
    ("learning rate", "learning rate", lambda ranks: {"optimizer": gpunet.Adam(on_rank(1, ranks, 0.1, 0.2))}),
    ("validation", "validation X", lambda ranks: {"validation": (X[on_rank(1, ranks, 1, 0) :][:9], Y[:9])}),
    ("sample weights", "sample_weight", lambda ranks: {"sample_weight": np.full(120, on_rank(1, ranks, 2.0, 1.0))}),
]  # fmt: skip


def described(metadata: dict[str, Any]) -> gpunet.Network:
    made = network()
    made.metadata = metadata
    return made


def trained(steps: int) -> gpunet.Network:
    made = network()
    if steps:
        made.set_parameters({"b2": np.array([1.0, 0.0, 0.0])})
    return made


@pytest.mark.parametrize(("name", "make"), [case[1:] for case in DIFFERENT], ids=[case[0] for case in DIFFERENT])
def test_what_is_different_is_named_before_anything_changes(name: str, make: Any) -> None:
    messages, states = [], []

    def run(ranks: Ranks) -> None:
        given = make(ranks)
        made = given.setdefault("made", network())
        before = made.flat_parameters.copy()
        with pytest.raises(DistributedError) as raised:
            fit(ranks, **given)
        messages.append(str(raised.value))
        states.append(np.array_equal(before, made.flat_parameters) and made.steps == 0)

    run_ranks(3, 3, run)
    assert all(states)
    assert len(set(messages)) == 1
    assert f"rank 1 has another {name} than rank 0" in messages[0]
    assert not re.search(r"[0-9a-f]{17}", messages[0]), "as long as a reader compares"


def test_metadata_that_cannot_be_compared_is_an_error_of_all() -> None:
    def run(ranks: Ranks) -> None:
        with pytest.raises(InvalidValueError, match=r"^metadata: cannot be written as JSON"):
            fit(ranks, described({"a": np.zeros(3)}))

    run_ranks(2, 2, run)
    fit(None, described({"a": np.zeros(3)}))


def test_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    names = threading.local()
    monkeypatch.setattr(
        gpunet.backends.NumpyBackend, "arithmetic", property(lambda self: {"NumPy": getattr(names, "version", "2.0")})
    )

    def run(ranks: Ranks) -> None:
        names.version = f"2.{ranks.rank}"
        fit(ranks)

    with pytest.raises(DistributedError, match=r"rank 1 has another version of NumPy than rank 0: 2\.1, and not 2\.0"):
        run_ranks(2, 2, run)


def test_an_error_of_one_rank_is_told_by_all_and_one_of_all_is_their_own() -> None:
    found: dict[int, BaseException] = {}

    def one(ranks: Ranks) -> None:
        try:
            fit(ranks, X=X[:, : on_rank(2, ranks, 4, 5)])
        except gpunet.errors.GpunetError as error:
            found[ranks.rank] = error

    run_ranks(3, 3, one)
    assert type(found[2]) is ShapeError
    assert [type(found[rank]) for rank in (0, 1)] == [DistributedError] * 2
    assert str(found[0]).startswith("rank 2 raised ShapeError: X: ")

    def every(ranks: Ranks) -> None:
        with pytest.raises(ShapeError, match=r"^X: "):
            fit(ranks, X=X[:, :4])

    run_ranks(3, 3, every)


class Meddler(gpunet.Callback):
    """Does something after an epoch on one rank."""

    def __init__(self, ranks: Ranks, rank: int, what: Any) -> None:
        self.is_here = ranks.rank == rank
        self.what = what

    def on_epoch_end(self, run: Any, record: Any) -> None:
        if self.is_here:
            self.what(run)


def change_a_weight(run: Any) -> None:
    run.network.set_parameters({"b2": np.array([1.0, 2.0, 3.0])})


def test_a_callback_that_changes_one_rank_is_found_out() -> None:
    def run(ranks: Ranks) -> None:
        with pytest.raises(DistributedError, match=r"after epoch 1, rank 1 has other weights than rank 0.*callback"):
            fit(ranks, callbacks=[Meddler(ranks, 1, change_a_weight)])

    run_ranks(2, 2, run)


def test_a_callback_that_changes_the_dropout_of_one_rank_is_found_out() -> None:
    def drop_more(run: Any) -> None:
        run.network.layers[2].rate = 0.5

    def run(ranks: Ranks) -> None:
        with pytest.raises(DistributedError, match=r"rank 1 has another dropout than rank 0: \[0\.5\], "):
            fit(ranks, network(dropout=0.1), callbacks=[Meddler(ranks, 1, drop_more)])

    run_ranks(2, 2, run)


def test_validation_batches_are_as_many_on_all_ranks() -> None:
    def run(ranks: Ranks) -> None:
        batches = [(X[:20], Y[:20])] * on_rank(1, ranks, 3, 4)
        with pytest.raises(DistributedError, match=r"another number of batches in validation_batches .*: 3, "):
            fit(ranks, validation_batches=batches)

    run_ranks(2, 2, run)


def test_an_error_in_validation_batches_of_one_rank_is_told_by_all() -> None:
    def run(ranks: Ranks) -> None:
        batches = [(X[:20], Y[:20]), (X[:20], Y[:20] + on_rank(1, ranks, 9, 0))]
        expected = on_rank(1, ranks, InvalidValueError, DistributedError)
        with pytest.raises(expected, match=r"validation_batches, batch 2: y: label \d+ in row \d+ is out of range"):
            fit(ranks, validation_batches=batches)

    run_ranks(2, 2, run)


def test_all_ranks_stop_where_one_wants_to() -> None:
    def stop(run: Any) -> None:
        run.stop = True

    made = run_ranks(3, 3, lambda ranks: fit(ranks, epochs=9, callbacks=[Meddler(ranks, 2, stop)]))
    assert [one.steps for one in made] == [4, 4, 4]


def test_all_ranks_stop_where_one_wants_to_before_the_first_epoch() -> None:
    class Stop(gpunet.Callback):
        def __init__(self, is_here: bool) -> None:
            self.is_here = is_here

        def on_fit_start(self, run: gpunet.Run) -> None:
            run.stop = self.is_here

    made = run_ranks(2, 2, lambda ranks: fit(ranks, callbacks=[Stop(ranks.rank == 1)]))
    assert [one.steps for one in made] == [0, 0]


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize(
    ("there", "words"),
    [
        ([40, 40], r"number of rows in batch 3 of epoch \d than rank 0: 0, and not 40"),
        ([40, 30, 40], r"number of rows in batch 2 of epoch \d than rank 0: 30, and not 40"),
        ([], r"rank 1 raised InvalidValueError: batches: epoch \d has none"),
    ],
)
def test_batches_are_of_the_same_lengths(there: list[int], words: str, epoch: int) -> None:
    def run(ranks: Ranks) -> None:
        def batches(number: int) -> list[Any]:
            lengths = there if number == epoch and ranks.rank == 1 else [40, 40, 40]
            return [(X[:length], Y[:length]) for length in lengths]

        expected = InvalidValueError if not there and ranks.rank == 1 else DistributedError
        with pytest.raises(expected, match="epoch \\d has none" if expected is InvalidValueError else words):
            fit(ranks, X=None, y=None, batches=batches)

    run_ranks(2, 2, run)


def test_batches_have_weights_on_all_ranks_or_on_none() -> None:
    def run(ranks: Ranks) -> None:
        batch = on_rank(1, ranks, (X, Y, np.ones(120)), (X, Y))
        with pytest.raises(
            DistributedError, match="rank 1 has another sample_weight in batches than rank 0: some, and"
        ):
            fit(ranks, X=None, y=None, batches=[batch])

    run_ranks(2, 2, run)


@pytest.mark.parametrize(
    ("factor", "words"), [(1e30, "the sum of the rows' weights is too large"), (1e-30, "too small")]
)
def test_weights_beyond_those_of_the_first_batch_are_an_error_of_all(factor: float, words: str) -> None:
    def run(ranks: Ranks) -> None:
        batches = [(X, Y, np.full(120, weight)) for weight in (0, 1 / factor, factor)]
        with pytest.raises(InvalidValueError, match=rf"^batches, batch 2 of epoch 1: sample_weight: .*{words}"):
            fit(ranks, X=None, y=None, batches=batches[1:])
        fit(ranks, X=None, y=None, batches=[batches[0], batches[2]])  # a batch without weight has nothing to go by

    run_ranks(2, 2, run)


def test_a_batch_that_fits_on_no_rank_is_an_error_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    def run(ranks: Ranks) -> None:
        with pytest.raises(ShapeError, match=r"^batches, batch 2 of epoch 1: X: "):
            fit(ranks, X=None, y=None, batches=[(X, Y), (X[:, :4], Y)])

    run_ranks(2, 2, run)
    assert not capsys.readouterr().err  # nobody has ended the others


def test_labels_that_no_network_of_this_size_learns_are_an_error_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    def run(ranks: Ranks) -> None:
        made = network()
        with pytest.raises(InvalidValueError, match=r"^y: has 4 different labels"):
            fit(ranks, made, y=np.array(["a", "b", "c", "d"])[np.arange(120) % 4])
        assert made.classes is None

    run_ranks(2, 2, run)
    assert not capsys.readouterr().err


def test_labels_are_compared() -> None:
    def run(ranks: Ranks) -> None:
        made = network()
        with pytest.raises(DistributedError, match="rank 1 has another classes than rank 0"):
            fit(ranks, made, y=np.array(["a", "b", on_rank(1, ranks, "d", "c")])[Y])
        assert made.classes is None

    run_ranks(2, 2, run)


def test_a_network_in_use_is_an_error_of_all() -> None:
    class Again(gpunet.Callback):
        def __init__(self, ranks: Ranks) -> None:
            self.ranks = ranks

        def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
            with pytest.raises(InUseError):
                fit(self.ranks, run.network)

    made = run_ranks(2, 2, lambda ranks: fit(ranks, callbacks=[Again(ranks)]))
    assert made[0].steps == made[1].steps == 8


def test_what_one_rank_alone_raises_aborts_all(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(run: Any) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        run_ranks(2, 2, lambda ranks: fit(ranks, callbacks=[Meddler(ranks, 1, fail)]))
    told = capsys.readouterr().err
    assert "OSError: the disk is full" in told
    assert "gpunet: rank 1 of 2 failed, and all are ended." in told


def test_divergence_is_the_same_on_all_ranks() -> None:
    found: dict[int, TrainingDivergedError] = {}

    def run(ranks: Ranks) -> np.ndarray:
        made = network(batch_norm=False)
        with pytest.raises(TrainingDivergedError) as raised:
            fit(ranks, made, optimizer=gpunet.SGD(1e30), epochs=5)
        found[ranks.rank] = raised.value
        return made.flat_parameters.copy()

    first, *others = run_ranks(3, 3, run)
    assert len({(error.epoch, error.step, error.layer, str(error)) for error in found.values()}) == 1
    assert np.isfinite(first).all()
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_the_first_place_that_is_not_finite_is_that_of_all_rows() -> None:
    rows = np.where(np.arange(16) < 8, 1e20, 1e38)[:, None] * np.ones(
        (1, 5)
    )  # the first rank's overflow one layer later

    def run(ranks: Ranks) -> str | None:
        made = gpunet.Network([5, 4, 4, 3], device="cpu:numpy", batch_norm=False)
        made.set_parameters({"W1": np.full((4, 5), 10.0), "W2": np.full((4, 4), 1e20)})
        with pytest.raises(TrainingDivergedError) as raised:
            fit(ranks, made, X=rows, y=Y[:16], batch_size=16, shuffle=False)
        return raised.value.layer

    (alone,) = run_ranks(1, 2, run)
    assert run_ranks(2, 2, run) == [alone, alone]


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(gpunet.training.loop, "write_checkpoint", fail)

    def run(ranks: Ranks) -> None:
        with pytest.raises(OSError, match="no space left"):
            fit(ranks, checkpoint=tmp_path / "checkpoint.safetensors")

    run_ranks(3, 3, run)


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 1},
        {"optimizer": lambda: gpunet.Adam(1e-3)},
        {"average": gpunet.WeightAverage(0.5)},
        # No epoch after the first one is so much better.
        {"early_stopping": gpunet.EarlyStopping(minimum_change=9.0), "validation": (X, Y)},
    ],
    ids=["weights", "moments", "average", "best weights"],
)
def test_other_processors_go_on_from_what_rank_0_has_after_each_epoch(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = threading.local()
    monkeypatch.setattr(
        gpunet.backends.NumpyBackend, "arithmetic", property(lambda self: {"processor": getattr(places, "kind", "a")})
    )

    class Rounds(gpunet.Callback):
        """Does, in the first epoch, what a processor that rounds differently does to all that an update writes."""

        def __init__(self, optimizer: gpunet.Optimizer) -> None:
            self.optimizer = optimizer
            self.weights: list[np.ndarray] = []

        def on_step_end(self, run: gpunet.Run) -> None:
            if run.epoch > 1:
                self.weights.append(run.network.flat_parameters.copy())
            elif places.kind == "kind 1":
                for vector in (run.network.flat_parameters, *self.optimizer.moments.values()):
                    vector *= 1.001

    def run(ranks: Ranks) -> np.ndarray:
        places.kind = f"kind {ranks.rank}"
        optimizer = given.get("optimizer", gpunet.SGD)()
        rounds = Rounds(optimizer)
        made = fit(ranks, network(batch_norm=False), **given | {"optimizer": optimizer, "callbacks": [rounds]})
        return np.array([made.flat_parameters, *rounds.weights])

    first, second = run_ranks(2, 2, run)
    np.testing.assert_array_equal(first, second)

"""Which run a checkpoint is of: what differs is refused by name, or warned of where only the bits are at stake."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import gpunet
from gpunet.backends import Backend
from gpunet.fingerprint import block_fingerprints, fingerprint, merge_fingerprints
from gpunet.serialization import read_tensors, write_tensors
from tests.helpers.networks import learnable, small_network

X, Y = learnable(40)
WEIGHTS = np.linspace(1, 2, 40)
BASE = {
    "batch_size": 16,
    "l2": 0.01,
    "clip_norm": 5.0,
    "validation": (X[:20], Y[:20]),
    "class_weight": {0: 2.0},
    "sample_weight": WEIGHTS,
}


def changed(array, position=3):
    array = np.array(array)
    array[position] = array[position - 1]
    return array


def run(path, *, X=X, y=Y, optimizer=None, network=None, epochs=2, **arguments):
    network = small_network() if network is None else network
    optimizer = gpunet.SGD(0.1, momentum=0.9) if optimizer is None else optimizer
    arguments = BASE | arguments
    return gpunet.fit(network, X, y, epochs=epochs, checkpoint=path, resume=True, optimizer=optimizer, **arguments)


@pytest.fixture
def path(tmp_path):
    run(tmp_path / "run.npz", epochs=1)
    return tmp_path / "run.npz"


DIFFERENT = {
    "X": ({"X": changed(X)}, "another X"),
    "order of the rows": ({"X": X[::-1], "y": Y[::-1], "sample_weight": WEIGHTS[::-1]}, "another X"),
    "y": ({"y": (Y + 1) % 3}, "another y"),
    "sample_weight": ({"sample_weight": changed(WEIGHTS)}, "another sample_weight"),
    "no sample_weight": ({"sample_weight": None}, "a run with sample_weight"),
    "class_weight": ({"class_weight": {0: 3.0}}, "another class_weight"),
    "balanced": ({"class_weight": "balanced"}, "another class_weight"),
    "no class_weight": ({"class_weight": None}, "a run with class_weight"),
    "validation X": ({"validation": (changed(X[:20]), Y[:20])}, "another validation X"),
    "validation y": ({"validation": (X[:20], changed((Y[:20] + 1) % 3))}, "another validation y"),
    "no validation": ({"validation": None}, "a run with validation X"),
    "momentum": ({"optimizer": gpunet.SGD(0.1, momentum=0.8)}, r"momentum=0\.9\. Expected 0\.8"),
    "no momentum": ({"optimizer": gpunet.SGD(0.1)}, r"momentum=0\.9\. Expected 0\.0"),
    "nesterov": ({"optimizer": gpunet.SGD(0.1, momentum=0.9, nesterov=True)}, "nesterov=False. Expected True"),
    "optimizer": ({"optimizer": gpunet.Adam()}, "optimizer='sgd'. Expected 'adam'"),
    "batch_size": ({"batch_size": 10}, "batch_size=16. Expected 10"),
    "l2": ({"l2": 0.02}, "l2=0.01. Expected 0.02"),
    "clip_norm": ({"clip_norm": None}, "clip_norm=5.0. Expected None"),
    "shuffle": ({"shuffle": False}, "shuffle=True. Expected False"),
    "rows": ({"X": X[:30], "y": Y[:30], "sample_weight": WEIGHTS[:30]}, "rows=40. Expected 30"),
    "seed": ({"network": small_network(seed=7)}, "seed=1. Expected 7"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_refused_by_name(path, case):
    arguments, message = DIFFERENT[case]
    network = arguments.get("network") or small_network()
    before = network.flat_parameters.copy()
    with pytest.raises(gpunet.InvalidValueError, match=f"checkpoint: .*{message}"):
        run(path, **arguments | {"network": network})
    np.testing.assert_array_equal(network.flat_parameters, before)
    assert network.steps == 0


@pytest.mark.parametrize(
    ("began", "goes_on", "message"),
    [
        (gpunet.Adam(beta_1=0.8), gpunet.Adam(), r"beta_1=0\.8\. Expected 0\.9"),
        (gpunet.Adam(beta_2=0.9), gpunet.Adam(), r"beta_2=0\.9\. Expected 0\.999"),
        (gpunet.Adam(epsilon=1e-6), gpunet.Adam(), "epsilon=1e-06. Expected 1e-08"),
        (gpunet.AdamW(weight_decay=0.1), gpunet.AdamW(), r"weight_decay=0\.1\. Expected 0\.01"),
        (gpunet.SGD(0.1), gpunet.SGD(0.1, momentum=0.9), r"momentum=0\.0\. Expected 0\.9"),
    ],
)
def test_other_hyperparameters_are_refused_by_name(tmp_path, began, goes_on, message):
    run(tmp_path / "run.npz", optimizer=began, epochs=1)
    with pytest.raises(gpunet.InvalidValueError, match=f"checkpoint: .*{message}"):
        run(tmp_path / "run.npz", optimizer=goes_on)


def test_the_same_values_in_another_form_are_the_same_data(path):
    lists = {"X": X.astype(np.float32).tolist(), "y": Y.astype(np.uint8), "class_weight": [2.0, 1.0, 1.0]}
    assert len(run(path, **lists)) == 2


@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "squared_error"])
def test_targets_that_are_numbers(tmp_path, loss):
    targets = np.abs(np.tanh(X[:, :3]))
    plain = {"class_weight": None, "validation": None, "y": targets}
    run(tmp_path / "run.npz", network=small_network(loss=loss), epochs=1, **plain)
    with pytest.raises(gpunet.InvalidValueError, match="another y"):
        run(tmp_path / "run.npz", network=small_network(loss=loss), **plain | {"y": changed(targets)})


def test_another_learning_rate_is_warned_of(path):
    with pytest.warns(gpunet.ResumeWarning, match=r"ConstantRate\(rate=0\.1\), and is StepRate\(.*\) now") as caught:
        history = run(path, optimizer=gpunet.SGD(gpunet.StepRate(0.1, 5), momentum=0.9), epochs=3)
    assert len(history) == 3
    assert caught[0].filename == __file__  # where fit is called
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left to do
        run(path, optimizer=gpunet.SGD(0.3, momentum=0.9), epochs=3)


def test_a_schedule_of_the_users_own_is_compared_by_its_class(path, tmp_path):
    class Own(gpunet.Schedule):
        def __call__(self, step):
            return 0.1

    run(tmp_path / "own.npz", optimizer=gpunet.SGD(Own(), momentum=0.9), epochs=1)
    assert len(run(tmp_path / "own.npz", optimizer=gpunet.SGD(Own(), momentum=0.9))) == 2


@pytest.mark.parametrize(
    ("name", "was"), [("BLAS threads", "64"), ("processor", "x"), ("NumPy", "1.0"), ("gpunet", "0"), ("device", "GPU")]
)
def test_other_arithmetic_is_warned_of(path, name, was):
    tensors, header = read_tensors(path)
    assert name in header["environment"]
    write_tensors(path, tensors, header | {"environment": header["environment"] | {name: was}})
    with pytest.warns(gpunet.ResumeWarning, match=f"it was computed with {name} {was}, and this is {name}"):
        assert len(run(path)) == 2


def test_another_number_of_blas_threads_is_noticed(path):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    threads = int(read_tensors(path)[1]["environment"]["BLAS threads"])
    other = 1 if threads > 1 else 2
    with threadpoolctl.threadpool_limits(other, user_api="blas"):
        if gpunet.Network([1, 2], device="cpu").backend.arithmetic["BLAS threads"] != str(other):
            pytest.skip("this BLAS library does not take another number of threads")
        with pytest.warns(gpunet.ResumeWarning, match=f"BLAS threads {threads}, and this is BLAS threads {other}"):
            run(path)


def test_what_is_not_known_is_not_compared(path, monkeypatch):
    unknown = dict.fromkeys(small_network().backend.arithmetic)
    monkeypatch.setattr(Backend, "arithmetic", property(lambda self: unknown))
    assert len(run(path)) == 2


def older(path, *names):
    """Leave out what older checkpoints do not have."""
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, {name: value for name, value in header.items() if name not in names})


def test_a_checkpoint_of_an_older_gpunet_goes_on_and_what_cannot_be_compared_is_told(path, tmp_path):
    expected = small_network()
    run(tmp_path / "whole.npz", network=expected)
    older(path, "hyperparameters", "digests", "learning_rate", "environment")
    network = small_network()
    with pytest.warns(
        gpunet.ResumeWarning,
        match="did not record the optimizer's hyperparameters, the data in blocks of rows, the learning rate, what "
        "computed it: not",
    ):
        run(path, network=network)
    np.testing.assert_array_equal(network.flat_parameters, expected.flat_parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(path, epochs=3)  # the checkpoint that it wrote is a new one


def test_a_digest_of_an_older_gpunet_is_not_compared_and_that_is_told(path):
    tensors, header = read_tensors(path)
    header["data"] = header.pop("digests") | {"X": "of the whole array"}
    write_tensors(path, tensors, header)
    with pytest.warns(gpunet.ResumeWarning, match="which did not record the data in blocks of rows: not compared"):
        assert len(run(path)) == 2


def test_older_checkpoints_tell_a_momentum_from_damage(path, tmp_path):
    older(path, "hyperparameters")
    with pytest.raises(gpunet.InvalidValueError, match=r"with a momentum\. Expected none"):
        run(path, optimizer=gpunet.SGD(0.1))
    run(tmp_path / "plain.npz", optimizer=gpunet.SGD(0.1), epochs=1)
    older(tmp_path / "plain.npz", "hyperparameters")
    with pytest.raises(gpunet.InvalidValueError, match=r"momentum=0\.0"):
        run(tmp_path / "plain.npz")


def test_a_fingerprint_depends_on_every_part():
    array = np.arange(12.0)
    variants = [
        fingerprint(array),
        fingerprint(array.reshape(3, 4)),
        fingerprint(array.astype(np.float32)),
        fingerprint(array[::-1]),
        fingerprint(array, array),
        fingerprint(np.concatenate([array, [0]])),
        *(fingerprint(np.where(np.arange(12) == position, -1, array)) for position in range(12)),
    ]
    assert len(set(variants)) == len(variants)
    assert fingerprint(np.asfortranarray(array.reshape(3, 4))) == variants[1]


def test_fingerprints_of_blocks_are_those_of_the_parts_whoever_reads_them(monkeypatch):
    """A block ends with the same row in any layout and on any number of ranks; rows and shape make a difference."""
    array = np.random.default_rng(0).standard_normal((101, 3))
    monkeypatch.setattr("gpunet.fingerprint._BYTES_AT_A_TIME", 10 * 3 * 4)
    whole = block_fingerprints(array, dtype=np.float32)
    assert whole == [fingerprint(array[start : start + 10].astype(np.float32)) for start in range(0, 101, 10)]
    assert block_fingerprints(np.asfortranarray(array.astype(np.float32))) == whole
    for parts in (1, 2, 3, 11, 20):
        blocks = [block_fingerprints(array, dtype=np.float32, part=(part, parts)) for part in range(parts)]
        assert [digest for own in blocks for digest in own] == whole
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    others = array[:100], array.reshape(303), array[::-1], np.append(array, array[:1], axis=0)
    merged = {merge_fingerprints(block_fingerprints(one, dtype=np.float32)) for one in others}
    assert len(merged | {merge_fingerprints(whole)}) == 5


def test_a_fingerprint_of_pieces_is_that_of_the_whole(monkeypatch):
    array = np.random.default_rng(0).standard_normal((1001, 3))
    whole = fingerprint(array)
    for size in (1, 100, 24 * 1001):
        monkeypatch.setattr("gpunet.fingerprint._BYTES_AT_A_TIME", size)
        assert fingerprint(array) == whole

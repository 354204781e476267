"""The compiled backend: the same bits whoever does the stripes, NumPy's trajectories, recorded steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.activations import ACTIVATIONS, CHECKED_POINTS, get_activation
from gpunet.backends import NumpyBackend
from gpunet.backends.cpu import CpuBackend
from gpunet.backends.cpu.blas import find_blas
from gpunet.backends.cpu.kernels.rows import WIDE
from gpunet.backends.cpu.pool import Pool
from tests.helpers.operations import CASES, Arrays, Operands

# Some rows and columns more than whole blocks, and more than one of them.
SHAPES = [(37, 5), (700, 300), (1031, 67)]


def with_threads(threads: int) -> CpuBackend:
    backend = CpuBackend()
    backend._pool = Pool(threads, find_blas())
    return backend


@pytest.fixture(scope="module")
def backends() -> list[CpuBackend]:
    return [with_threads(threads) for threads in (1, 2, 3, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "make"), CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def test_the_number_of_threads_changes_no_bit(
    name: str, make: Callable[[Operands], Arrays], shape: tuple[int, int], backends: list[CpuBackend]
) -> None:
    first, *others = [make(Operands(shape)) for _ in backends]
    for backend, arguments in zip(backends, [first, *others], strict=True):
        for _ in range(1 if arguments is first else 3):  # a race shows now and then
            arguments.update(make(Operands(shape)))
            getattr(backend, name)(**arguments)
    for other in others:
        for argument, value in first.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(other[argument], value, err_msg=argument)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 513), (7, 300, 1031), (64, 64, 4096), (300, 7, 700)])
def test_products_over_many_rows_are_sums_over_blocks_of_them(
    m: int, n: int, k: int, accumulate: bool, backends: list[CpuBackend]
) -> None:
    rng = np.random.default_rng(0)
    a, b, before = rng.standard_normal((k, m)), rng.standard_normal((k, n)), rng.standard_normal((m, n))
    found = []
    for backend in backends:
        for _ in range(3):
            out = before.copy()
            backend.gemm(a, b, out, transpose_a=True, accumulate=accumulate)
            found.append(out)
    np.testing.assert_allclose(found[0], a.T @ b + (before if accumulate else 0), rtol=1e-10, atol=1e-10)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("name", ["dropout_forward", "dropout_backward", "sample_bernoulli"])
def test_random_decisions_may_be_made_in_place(name: str) -> None:
    """Also in float32, whose elements are as wide as the random words."""
    rng, shape = np.random.default_rng(0), (700, 67)
    given, mask, step = rng.uniform(0, 1, shape).astype(np.float32), np.empty(shape, np.uint8), np.array([7])
    results = []
    for backend in (CpuBackend(), NumpyBackend()):
        x = given.copy()
        backend.dropout_forward(x, x, mask, 0.3, 5, 2, step)
        if name == "dropout_backward":
            x = given.copy()
            backend.dropout_backward(x, mask, 0.3, x)
        elif name == "sample_bernoulli":
            x = given.copy()
            backend.sample_bernoulli(x, x, 5, 2, step)
        results.append(np.concatenate([x.ravel(), mask.ravel()]))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_compiled_activations_are_numpys_to_rounding(name: str, dtype: str) -> None:
    activation = get_activation(name)
    edges = [0.0, 1e-30, 1e-4, 87.0, 103.9, 104.1, 709.0, 745.0, 1e4, np.inf]
    s = np.concatenate([CHECKED_POINTS, edges, np.negative(edges), [np.nan]]).astype(dtype)[np.newaxis]
    dy, found, expected = np.ones_like(s), np.empty_like(s), np.empty_like(s)
    resolution = 64 * float(np.finfo(dtype).eps)  # of exp(-30) with an argument that is rounded: 30 of it
    least = 1024 * float(np.finfo(dtype).tiny)  # s times a factor that is denormal, and so 0
    with np.errstate(all="ignore"):
        for backend, out in ((CpuBackend(), found), (NumpyBackend(), expected)):
            backend.bias_activation_forward(s, None, activation, out)
        np.testing.assert_allclose(found, expected, rtol=resolution, atol=least)
        kept = s if activation.derivative_of == "input" else expected.copy()
        for backend, out in ((CpuBackend(), found), (NumpyBackend(), expected)):
            backend.bias_activation_backward(dy, kept, activation, out, None)
        np.testing.assert_allclose(found, expected, rtol=resolution, atol=resolution)


@pytest.mark.parametrize("far", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("shape", [(300, 70), (65536, 3)])
def test_statistics_keep_their_digits_far_from_zero(far: float, shape: tuple[int, int]) -> None:
    """As those of NumPy's backend do: the values are exact in float32, so float64 knows the answer."""
    rng = np.random.default_rng(0)
    s = (far + np.round(rng.standard_normal(shape) * 64) / 64).astype(np.float32)
    columns = shape[1]
    mean, inverse_std, average, variance = (np.zeros(columns, np.float32) for _ in range(4))
    out = np.empty_like(s)
    CpuBackend().batch_norm_activation_forward(
        s, None, None, get_activation("identity"), out, mean, inverse_std, average, variance, 1.0, 1e-5
    )
    exact = s.astype(np.float64)
    eps = float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=eps, atol=eps)
    # A block's at most 512 squares are added up four at a time: 128 roundings.
    np.testing.assert_allclose(inverse_std, 1 / np.sqrt(exact.var(axis=0) + 1e-5), rtol=64 * eps)
    np.testing.assert_allclose(variance, exact.var(axis=0, ddof=1), rtol=128 * eps)
    np.testing.assert_allclose(out.mean(axis=0, dtype=np.float64), 0, atol=4 * eps)


@pytest.mark.parametrize("columns", [WIDE // 8 + 1, 1_000_003])
@pytest.mark.parametrize(
    ("name", "make"), {name: (name, make) for name, make in CASES if name.startswith(("batch_norm", "bias"))}.values()
)
def test_rows_are_as_long_as_they_like(name: str, make: Callable[[Operands], Arrays], columns: int) -> None:
    """Longer ones than are gone through at once, in more parts than a thread's stack would hold."""
    ours, expected = make(Operands((3, columns))), make(Operands((3, columns)))
    getattr(CpuBackend(), name)(**ours)
    getattr(NumpyBackend(), name)(**expected)
    for argument, value in expected.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(ours[argument], value, rtol=1e-10, atol=1e-10, err_msg=argument)


def trained(backend: Any, rows: int = 333, update: Any = None, **options: Any) -> tuple[gpunet.Network, gpunet.History]:
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((rows, 9)), rng.integers(0, 4, rows)
    network = gpunet.Network([9, 40, 30, 4], dropout=0.2, dtype="float64", device=backend, **options)
    history = gpunet.fit(
        network,
        X,
        y,
        epochs=3,
        batch_size=50 if rows < 1000 else rows // 2,
        optimizer=gpunet.Adam(0.01),
        l2=1e-3,
        clip_norm=1.0,
        validation=(X[:50], y[:50]),
        **(update or {}),
    )
    return network, history


OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_norm": False, "activation": "gelu"},
    {"activation": "tanh"},
    {"rows": 2400},  # enough for chains
    {"rows": 2400, "batch_norm": False},
    {"rows": 2400, "activation": "silu"},
    {"update": {"accumulate": 3, "average": gpunet.WeightAverage(0.9)}},
    {"batch_norm": False, "update": {"average": gpunet.WeightAverage(0.9)}},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_training_follows_numpy_to_rounding(options: dict[str, Any]) -> None:
    ours, expected = trained(CpuBackend(), **options), trained(NumpyBackend(), **options)
    for name, value in expected[0].get_parameters().items():
        np.testing.assert_allclose(ours[0].get_parameters()[name], value, rtol=1e-8, atol=1e-10, err_msg=name)
    for found, record in zip(ours[1], expected[1], strict=True):
        assert found.loss == pytest.approx(record.loss, rel=1e-9)
        assert found.validation_loss == pytest.approx(record.validation_loss, rel=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
def test_training_has_the_same_bits_for_any_number_of_threads(options: dict[str, Any]) -> None:
    weights = [trained(with_threads(threads), **options)[0].get_parameters() for threads in (1, 2, 5)]
    for other in weights[1:]:
        for name, value in weights[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


def softsign(**texts: Any) -> gpunet.Activation:
    return gpunet.Activation(
        "softsign",
        forward=lambda s: s / (1 + np.abs(s)),
        derivative=lambda s: (1 + np.abs(s)) ** -2,
        derivative_of="input",
        **texts,
    )


TEXTS = {"cuda_forward": "s / (1 + fabs(s))", "cuda_derivative": "1 / ((1 + fabs(s)) * (1 + fabs(s)))"}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (TEXTS, ""),
        ({}, "it has no CUDA text"),
        (TEXTS | {"cuda_forward": "s / (1 + warp(s))"}, "unknown function 'warp'"),
        (TEXTS | {"cuda_forward": "s / (1 + width)"}, "unknown name 'width'"),
        (TEXTS | {"cuda_forward": "s / (2 + fabs(s))"}, "cuda_forward gives other numbers"),
        (TEXTS | {"cuda_derivative": "while (true) return 1;"}, "expected"),
    ],
)
def test_activations_that_cannot_be_compiled_run_on_numpy_and_say_so(
    texts: dict[str, str], said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpunet.backends.notices._said", set())
    activation = softsign(**texts)
    for options in ({}, {"batch_norm": False}):
        ours = trained(CpuBackend(), activation=activation, **options)
        expected = trained(NumpyBackend(), activation=activation, **options)
        for name, value in expected[0].get_parameters().items():
            np.testing.assert_allclose(ours[0].get_parameters()[name], value, rtol=1e-8, atol=1e-10, err_msg=name)
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text


def test_a_recorded_step_allocates_nothing_and_repeats_the_step() -> None:
    """What changes between steps is in arrays, also for the operations that run on NumPy."""
    backend = CpuBackend()
    x, out = backend.empty((64, 8), np.float32), backend.zeros((64, 8), np.float32)
    sums, index = backend.zeros((8, 8), np.float32), np.arange(64, dtype=np.int32)
    picked = backend.zeros((64, 8), np.float32)

    def step() -> None:
        backend.gather_batch(index, x, picked)
        backend.bias_activation_forward(picked, None, get_activation("relu"), out)
        backend.gemm(out, x, sums, transpose_a=True)

    x[...] = 5
    replay = backend.capture(step)
    assert not out.any()  # recording does nothing
    x[...] = np.random.default_rng(0).standard_normal(x.shape)
    index[...] = index[::-1].copy()
    replay()
    np.testing.assert_array_equal(out, np.maximum(x[::-1], 0))
    np.testing.assert_allclose(sums, np.maximum(x[::-1], 0).T @ x, rtol=1e-4, atol=1e-4)


def test_calls_have_their_place_in_a_recording() -> None:
    backend, x, seen = CpuBackend(), np.zeros(3), []

    def step() -> None:
        backend.copy(np.ones(3), x)
        backend.call(lambda: seen.append(float(x[0])))
        backend.copy(np.full(3, 2.0), x)
        backend.call(lambda: seen.append(float(x[0])))

    step()
    replay = backend.capture(step)
    assert seen == [1, 2]
    replay()
    assert seen == [1, 2, 1, 2]


def test_a_recorded_copy_may_be_of_nothing() -> None:
    backend = CpuBackend()
    backend.capture(lambda: backend.copy(np.empty((0, 3)), backend.empty((0, 3), np.float64)))()


def test_inference_has_the_same_bits_for_any_number_of_threads(backends: list[CpuBackend]) -> None:
    X = np.random.default_rng(0).standard_normal((1300, 9)).astype(np.float32)
    networks = [gpunet.Network([9, 40, 300, 4], device=backend) for backend in (NumpyBackend(), *backends)]
    expected, first, *others = [network.logits(X) for network in networks]
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_a_recording_is_dropped_by_an_error() -> None:
    backend = CpuBackend()
    source, destination = np.ones((1, 3)), np.zeros((1, 3))

    def fail(x: Any) -> None:
        backend.copy(x, destination)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        backend.capture_pass(fail, source)
    assert not destination.any()
    backend.copy(source, destination)
    assert destination.all()

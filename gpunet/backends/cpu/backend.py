"""The compiled and threaded backend: stripes of work, whatever number of threads does them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaError

from gpunet.activations import CHECKED_POINTS, Activation, Identity, OwnActivation
from gpunet.backends.arrays import Array
from gpunet.backends.backend import Backend, as_method
from gpunet.backends.compilation import telling_of_compilation
from gpunet.backends.cpu.activation_source import UncompilableError, translate
from gpunet.backends.cpu.blas import find_blas
from gpunet.backends.cpu.kernels import (
    batch_norm,
    batch_norm_shards,
    bias_activation,
    losses,
    optimizer,
    random,
    shards,
    training,
)
from gpunet.backends.cpu.kernels.gemm import gemm_over_rows_kernel, gemm_tile
from gpunet.backends.cpu.machine_code import FLUSHES_DENORMALS, WIDTH
from gpunet.backends.cpu.plan import MOST_TILES, block_rows, chunk, product_rows, tile
from gpunet.backends.cpu.pool import Pool, shared_pool
from gpunet.backends.cpu.program import Argument, NumpyCall, Operations, Phase, Program, Recording, Replay
from gpunet.backends.notices import say_once
from gpunet.backends.numpy import NumpyBackend
from gpunet.backends.reference.training import Tally
from gpunet.random import Stream, dropout_threshold


@functools.cache
def _stamp() -> str:
    """Return a digest of the sources that kernels are compiled from: a change in any makes Numba's cache miss."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _compiled(factory: Callable[..., Any], *constants: Any) -> Any:
    """Return the kernel of a factory for some constants, compiled once in a process and kept on disk."""
    with telling_of_compilation():
        return factory(*constants, _stamp())


def _real(array: Array) -> Any:
    """Return float32 or float64, whichever an array has."""
    return array.dtype.type


def _are_contiguous(*arrays: Array) -> bool:
    return all(array.flags.c_contiguous for array in arrays)


class _HasNoKernelError(Exception):
    """An operation on these arguments is NumPy's."""


def _sources(activation: Activation) -> tuple[str, str]:
    """Return what an activation and its derivative are compiled from."""
    sources = _translated(activation)
    if sources is None:
        raise _HasNoKernelError
    return sources


@functools.lru_cache(maxsize=64)
def _translated(activation: Activation) -> tuple[str, str] | None:
    """Return the sources of an activation, None where they cannot be compiled, which is said once."""
    try:
        sources = translate(activation)
        if not isinstance(activation, OwnActivation):
            _compare(activation, *sources)
    except (UncompilableError, NumbaError) as error:
        say_once(f"the activation {activation} runs on NumPy alone", str(error).strip().splitlines()[0])
        return None
    return sources


def _compare(activation: Activation, forward: str, derivative: str) -> None:
    """Raise UncompilableError where what is compiled is not the user's function."""
    s = CHECKED_POINTS[np.newaxis].copy()
    y, found = activation.forward(s), np.empty_like(s)
    kept, of_input = (s, True) if activation.derivative_of == "input" else (y, False)
    shape = (1, s.size, 1)
    pool = Pool(1, None)
    kernel = _compiled(bias_activation.forward_kernel, forward, np.float64)
    Program(pool, [Phase(kernel, [s, None, found, *shape, activation.parameter], 1)])()
    if not np.allclose(found, y, rtol=1e-4, atol=1e-6):
        raise UncompilableError("cuda_forward gives other numbers than forward")
    kernel = _compiled(bias_activation.backward_kernel, derivative, of_input, np.float64)
    given = [0, np.ones_like(s), kept, found, None, None, None, *shape, activation.parameter]
    Program(pool, [Phase(kernel, given, 1)])()
    if not np.allclose(found, activation.derivative(kept), rtol=1e-4, atol=1e-6):
        raise UncompilableError("cuda_derivative gives other numbers than derivative")


def _stream(stream: Stream, seed: int) -> tuple[int, int, int]:
    """Return a stream and the two words of a seed."""
    return int(stream), seed & 0xFFFFFFFF, seed >> 32


def _on_numpy(name: str) -> Callable[..., None]:
    """Return the method of an operation that has no kernel."""

    def method(self: CpuBackend, *args: Any, **kwargs: Any) -> None:
        self._run_numpy(name, *args, **kwargs)

    return as_method(method, vars(NumpyBackend).get(name, getattr(NumpyBackend, name)))


def _laid_out(method: Callable[..., None]) -> Callable[..., None]:
    """Return a method that does an operation, which is laid out at the first of several calls with the same arguments.

    Within a recording it becomes a part of that.
    """

    @functools.wraps(method)
    def call(self: CpuBackend, *args: Any, **kwargs: Any) -> None:
        try:
            if self._recording is not None:
                method(self, *args, **kwargs)
                return
            step = functools.partial(method, self, *args, **kwargs)
            calls = self._operations(method.__name__, args, kwargs, functools.partial(self._recorded, step))
        except _HasNoKernelError:
            self._run_numpy(method.__name__, *args, **kwargs)
            return
        for one in calls:
            one()

    return call


class CpuBackend(NumpyBackend):
    """Runs operations in stripes on compiled kernels; those without one run on NumPy."""

    name = "cpu"
    records_calls = True

    def __init__(self) -> None:
        super().__init__()
        self._pool = shared_pool()
        self._blas = find_blas()
        self._operations = Operations()
        self._recording: Recording | None = None
        self._done = np.zeros(1, np.int64)  # of blocks that a product is summed over; 0 between two of them

    def flush_denormals(self, arrays: Iterable[Array]) -> None:
        if not FLUSHES_DENORMALS:
            super().flush_denormals(arrays)

    @property
    def description(self) -> dict[str, str | int]:
        """What compiles, what multiplies, and how many threads there are."""
        blas = "NumPy's" if self._blas is None else f"{self._blas.name} {self._blas.version}"
        return {"numba": numba.__version__, "blas": blas, "threads": self._pool.threads}

    @property
    def arithmetic(self) -> dict[str, str | None]:
        """That of NumPy's backend, and of what compiles; but the number of threads changes no bit."""
        found = super().arithmetic | {"CPU backend": f"compiled by Numba {numba.__version__}"}
        found["tiles of a large product"] = str(MOST_TILES)
        if self._blas is not None:
            del found["BLAS threads"]
            if self._blas.name == "mkl":
                found["BLAS"] = f"mkl {self._blas.version}"
        return found

    def _run(self, *phases: Phase) -> None:
        """Record phases, which whoever asked for the recording will do."""
        assert self._recording is not None
        self._recording.add_phases(phases)

    def _run_numpy(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Do an operation as the NumPy backend does it, now, or in a recording."""
        self._call(NumpyCall(getattr(super(), name), args, kwargs))

    def call(self, function: Callable[[], None]) -> None:
        self._call(NumpyCall(function, (), {}))

    def _call(self, function: NumpyCall) -> None:
        if self._recording is None:
            function()
        else:
            self._recording.add_call(function)

    def copy(self, source: Array, destination: Array) -> None:
        is_copy_of_bytes = source.dtype == destination.dtype and source.shape == destination.shape
        if self._recording is None or not (is_copy_of_bytes and _are_contiguous(source, destination)):
            self._run_numpy("copy", source, destination)
            return
        if not source.size:
            return
        size, per_chunk = source.nbytes, 8 * chunk(source.nbytes)
        given: list[Argument] = [source, destination, size, per_chunk]
        self._run(Phase(_compiled(training.copy_kernel), given, -(-size // per_chunk)))

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        return Replay(self._pool, self._recorded(step).calls)

    @property
    def pass_recorder(self) -> CpuBackend | None:
        return self if self._recording is None else None

    def capture_pass(self, run: Callable[[Array], object], x: Array) -> Replay | None:
        x = x.view()  # of its own, so that nothing else is taken for it
        replay = Replay(self._pool, self._recorded(functools.partial(run, x)).calls, x)
        return replay if replay.accepts(x) else None

    def _recorded(self, step: Callable[[], object]) -> Recording:
        self._recording = recording = Recording(self._pool)
        try:
            step()
        finally:
            self._recording = None
        return recording

    # --- linear layer (L1) ------------------------------------------------------------------------------------------

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        blas = self._blas
        if blas is None or not _are_contiguous(a, b, out):
            raise _HasNoKernelError
        (m, n), k = out.shape, a.shape[0] if transpose_a else a.shape[1]
        gemm = blas.sgemm if out.dtype == np.float32 else blas.dgemm
        given: list[Argument] = [gemm, blas.has_long_integers]
        if transpose_a and not transpose_b and (rows := product_rows(m, n, k)):
            blocks = -(-k // rows)
            sums = self._scratch("products", (blocks, m, n), out.dtype)
            given += [a, b, out, sums, self._done, m, n, k, accumulate, rows]
            self._run(Phase(_compiled(gemm_over_rows_kernel, _real(out)), given, blocks, (k, rows)))
            return
        rows, columns = tile(m, n, k)
        given += [out.dtype.itemsize, a, b, out, m, n, k, transpose_a, transpose_b, accumulate, rows, columns]
        by_rows = (m, rows) if columns == n and not transpose_a else None
        self._run(Phase(gemm_tile, given, -(-m // rows) * -(-n // columns), by_rows))

    # --- bias and activation (L1, L3) -------------------------------------------------------------------------------

    def bias_activation_forward(self, s: Array, bias: Array | None, activation: Activation, out: Array) -> None:
        sources = _sources(activation)
        rows, columns = s.shape
        kernel = _compiled(bias_activation.forward_kernel, sources[0], _real(s))
        per_block = block_rows(rows, columns)
        given: list[Argument] = [s, bias, out, rows, columns, per_block, activation.parameter]
        self._run(Phase(kernel, given, -(-rows // per_block), (rows, per_block)))

    def bias_activation_backward(
        self,
        dy: Array,
        kept: Array,
        activation: Activation,
        ds: Array,
        dbias: Array | None,
        bias: Array | None = None,
    ) -> None:
        sources = _sources(activation)
        rows, columns = dy.shape
        of_input = activation.derivative_of == "input"
        kernel = _compiled(bias_activation.backward_kernel, sources[1], of_input, _real(dy))
        per_block = block_rows(rows, columns)
        blocks = -(-rows // per_block)
        sums = self._scratch("sums", (blocks, columns), dy.dtype)
        given: list[Argument] = [0, dy, kept, ds, bias, dbias, sums]
        given += [rows, columns, per_block, activation.parameter]
        phases = [Phase(kernel, given, blocks, (rows, per_block))]
        if dbias is not None:
            phases.append(Phase(kernel, [1, *given[1:]], 1))
        self._run(*phases)

    # --- batch normalisation and activation (L22-L24) ---------------------------------------------------------------

    def batch_norm_activation_forward(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        mean: Array,
        inverse_std: Array,
        running_mean: Array,
        running_variance: Array,
        momentum: float,
        epsilon: float,
    ) -> None:
        sources = _sources(activation)
        arrays = (mean, inverse_std, running_mean, running_variance)
        kernel = _compiled(batch_norm.forward_kernel, sources[0], _real(s))
        given: list[Argument] = [s, out, 0, gamma, beta, *arrays, 0]
        numbers = [float(momentum), float(epsilon), activation.parameter]
        self._run_batch_norm(kernel, s, given, 2, 9, numbers, ({0, 2}, {0, 1, 5, 9}))

    def _run_batch_norm(
        self,
        kernel: Any,
        s: Array,
        given: list[Argument],
        sums_at: int,
        factors_at: int | None,
        numbers: list[float],
        used: tuple[set[int], ...],
    ) -> None:
        """Run a kernel of batch norm; ``used`` says which arguments the phases read or write that go by rows.

        Those are one or two: without the second, nothing follows the sums over rows. Blocks are of rows, also where one
        of columns would have all sums: of two threads with columns of the same rows, each fetches ahead what the other
        writes.
        """
        rows, columns = s.shape
        per_block = block_rows(rows, columns)
        blocks = -(-rows // per_block)
        given[sums_at] = self._scratch("sums", (blocks, batch_norm.SUMS, columns), s.dtype)
        if factors_at is not None:
            given[factors_at] = self._scratch("factors", (3, columns), s.dtype)
        sizes: list[Argument] = [rows, columns, per_block, *numbers]
        first, *last = ([argument if i in use else None for i, argument in enumerate(given)] for use in used)
        self._run(
            Phase(kernel, [0, *first, *sizes], blocks, (rows, per_block)),
            Phase(kernel, [1, *given, *sizes], -(-columns // WIDTH)),
            *(Phase(kernel, [2, *arguments, *sizes], blocks, (rows, per_block)) for arguments in last),
        )

    def batch_norm_activation_backward(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        ds: Array,
        dgamma: Array | None,
        dbeta: Array | None,
    ) -> None:
        sources = _sources(activation)
        kernel = self._backward_kernel(sources[1], activation, s)
        given: list[Argument] = [dy, s, y, ds, 0, gamma, beta, mean, inverse_std, dgamma, dbeta, 0]
        used = set(range(9)), {1, 3, 7, 11}
        self._run_batch_norm(kernel, s, given, 4, 11, [activation.parameter], used)

    def _backward_kernel(self, source: str, activation: Activation, s: Array) -> Any:
        return _compiled(batch_norm.backward_kernel, source, activation.derivative_of == "input", _real(s))

    def batch_norm_activation_inference(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        running_mean: Array,
        running_variance: Array,
        epsilon: float,
    ) -> None:
        sources = _sources(activation)
        statistics = (running_mean, running_variance, float(epsilon))
        self._apply_batch_norm(sources[0], True, s, gamma, beta, activation, out, *statistics)

    def _apply_batch_norm(
        self,
        source: str,
        of_variance: bool,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        mean: Array,
        spread: Array,
        epsilon: float,
    ) -> None:
        rows, columns = s.shape
        kernel = _compiled(batch_norm.apply_kernel, source, of_variance, _real(s))
        per_block = block_rows(rows, columns)
        given: list[Argument] = [s, out, gamma, beta, mean, spread, rows, columns, per_block]
        given += [epsilon, activation.parameter]
        self._run(Phase(kernel, given, -(-rows // per_block), (rows, per_block)))

    # --- the same in parts, for a batch whose rows are in shards ------------------------------------------------------

    def batch_norm_statistics(self, s: Array, statistics: Array) -> None:
        kernel = _compiled(batch_norm_shards.statistics_kernel, _real(s))
        self._run_batch_norm(kernel, s, [s, 0, statistics], 1, None, [], ({0, 1},))

    def batch_norm_merge(
        self,
        statistics: Array,
        counts: Array,
        mean: Array,
        inverse_std: Array,
        running_mean: Array,
        running_variance: Array,
        momentum: float,
        epsilon: float,
    ) -> None:
        kernel, columns = _compiled(batch_norm_shards.merge_kernel, _real(statistics)), mean.size
        given: list[Argument] = [statistics, counts, mean, inverse_std, running_mean, running_variance]
        given += [len(counts), columns, float(momentum), float(epsilon)]
        self._run(Phase(kernel, given, -(-columns // WIDTH)))

    def batch_norm_activation_apply(
        self,
        s: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        out: Array,
        mean: Array,
        inverse_std: Array,
    ) -> None:
        sources = _sources(activation)
        self._apply_batch_norm(sources[0], False, s, gamma, beta, activation, out, mean, inverse_std, 0.0)

    def batch_norm_activation_sums(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        dgamma: Array,
        dbeta: Array,
    ) -> None:
        sources = _sources(activation)
        kernel = self._backward_kernel(sources[1], activation, s)
        given: list[Argument] = [dy, s, y, None, 0, gamma, beta, mean, inverse_std, dgamma, dbeta, None]
        self._run_batch_norm(kernel, s, given, 4, None, [activation.parameter], (set(range(9)),))

    def batch_norm_activation_input_gradient(
        self,
        dy: Array,
        s: Array,
        y: Array,
        gamma: Array | None,
        beta: Array | None,
        activation: Activation,
        mean: Array,
        inverse_std: Array,
        dgamma: Array,
        dbeta: Array,
        ds: Array,
        *,
        rows: int,
    ) -> None:
        sources = _sources(activation)
        of_input = activation.derivative_of == "input"
        kernel = _compiled(batch_norm_shards.input_gradient_kernel, sources[1], of_input, _real(s))
        (own, columns), per_block = s.shape, block_rows(*s.shape)
        arrays: list[Argument] = [dy, s, y, ds, gamma, beta, mean, inverse_std, dgamma, dbeta]
        sizes: list[Argument] = [own, columns, per_block, rows, activation.parameter]
        self._run(Phase(kernel, [*arrays, *sizes], -(-own // per_block), (own, per_block)))

    def weigh_shard(self, doutputs: Array, dbias: Array | None, loss: Array, sums: Array, *, rows: int) -> None:
        kernel, size = _compiled(shards.weigh_kernel, _real(doutputs)), doutputs.size
        given: list[Argument] = [doutputs, dbias, loss, sums, size, chunk(size), doutputs.shape[1], rows]
        self._run(Phase(kernel, given, -(-size // chunk(size))))

    def sum_shards(self, parts: Array, levels: Array, out: Array) -> None:
        (count, size), kernel = parts.shape, _compiled(shards.sum_kernel, _real(parts))
        chunks = -(-size // chunk(size))
        stack = self._scratch("stack", (chunks, count, WIDTH), parts.dtype)
        levels_of_stack = self._scratch("levels", (chunks, count), np.int32)
        given: list[Argument] = [parts, levels, out, stack, levels_of_stack, parts.strides[0], count, size, chunk(size)]
        self._run(Phase(kernel, given, chunks))

    def divide_sums(self, gradients: Array, sums: Array, loss: Array, *, rows: int) -> None:
        kernel, size = _compiled(shards.divide_kernel, _real(gradients)), gradients.size
        given: list[Argument] = [gradients, sums, loss, size, chunk(size), rows]
        self._run(Phase(kernel, given, -(-size // chunk(size))))

    # --- random bits ------------------------------------------------------------------------------------------------

    def dropout_forward(
        self, x: Array, out: Array, mask: Array, rate: float, seed: int, layer: int, step: Array, *, first: int = 0
    ) -> None:
        if x.shape != mask.shape:  # of half precision, which networks here do not have
            raise _HasNoKernelError
        size, threshold = x.size, dropout_threshold(rate)
        given: list[Argument] = [x, out, mask, step, size, chunk(size), threshold, *_stream(Stream.DROPOUT, seed)]
        given += [layer, 1 / (1 - rate), first]
        self._run(Phase(_compiled(random.dropout_forward_kernel, _real(x)), given, -(-size // chunk(size))))

    def dropout_backward(self, dy: Array, mask: Array, rate: float, dx: Array) -> None:
        if dy.shape != mask.shape:
            raise _HasNoKernelError
        given: list[Argument] = [dy, mask, dx, dy.size, chunk(dy.size), 1 / (1 - rate)]
        self._run(Phase(_compiled(random.dropout_backward_kernel, _real(dy)), given, -(-dy.size // chunk(dy.size))))

    def sample_bernoulli(self, probabilities: Array, out: Array, seed: int, layer: int, step: Array) -> None:
        size, kernel = out.size, _compiled(random.sample_bernoulli_kernel, _real(out))
        given: list[Argument] = [probabilities, out, step, size, chunk(size), *_stream(Stream.SAMPLING, seed), layer]
        self._run(Phase(kernel, given, -(-size // chunk(size))))

    # --- losses (L4, L12) --------------------------------------------------------------------------------------------

    def softmax_cross_entropy(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        arrays = outputs, targets, weights, doutputs, loss, bias, dbias
        self._run_loss(_compiled(losses.softmax_cross_entropy_kernel, _real(outputs)), *arrays, tally)

    def soft_cross_entropy(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        label_smoothing: float,
        class_weights: Array | None,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        arrays = outputs, targets, weights, doutputs, loss, bias, dbias
        kernel = _compiled(losses.soft_cross_entropy_kernel, targets.ndim == 1, _real(outputs))
        self._run_loss(kernel, *arrays, tally, class_weights, float(label_smoothing))

    def sigmoid_cross_entropy(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        arrays = outputs, targets, weights, doutputs, loss, bias, dbias
        self._run_loss(_compiled(losses.sigmoid_cross_entropy_kernel, _real(outputs)), *arrays, tally)

    def squared_error(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        arrays = outputs, targets, weights, doutputs, loss, bias, dbias
        self._run_error_loss(losses.SQUARED, *arrays, tally)

    def huber(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        delta: float,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        arrays = outputs, targets, weights, doutputs, loss, bias, dbias
        self._run_error_loss(losses.HUBER, *arrays, tally, delta=delta)

    def quantile(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        levels: Array,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
    ) -> None:
        arrays = outputs, targets, weights, doutputs, loss, bias, dbias
        self._run_error_loss(losses.QUANTILE, *arrays, tally, levels=levels)

    def _run_error_loss(
        self, kind: int, outputs: Array, *others: Any, delta: float = 0.0, levels: Array | None = None
    ) -> None:
        kernel = _compiled(losses.error_kernel, kind, _real(outputs))
        self._run_loss(kernel, outputs, *others, float(delta), levels, 0 if levels is None else levels.size)

    def _run_loss(
        self,
        kernel: Any,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        loss: Array,
        bias: Array | None,
        dbias: Array | None,
        tally: Tally | None,
        *more: Argument,
    ) -> None:
        rows, columns = outputs.shape
        per_block = block_rows(rows, columns)
        blocks = -(-rows // per_block)
        sums = self._scratch("losses", (blocks,), np.float64)
        given: list[Argument] = [outputs, targets, weights, doutputs, loss, sums, rows, columns, per_block, *more]
        self._run(Phase(kernel, [0, *given], 1))
        if bias is not None:
            self.bias_activation_forward(outputs, bias, Identity(), outputs)
        self._run(Phase(kernel, [1, *given], blocks, (rows, per_block)))
        if dbias is not None:
            self.bias_activation_backward(doutputs, doutputs, Identity(), doutputs, dbias)
        self._run(Phase(kernel, [2, *given], 1))
        if tally is not None:
            self.count_step(loss, **tally._asdict(), rows=rows)

    def score_classes(self, outputs: Array, labels: Array, weights: Array | None, out: Array) -> None:
        self._run_score(True, outputs, labels, weights, out)

    def score_switches(self, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
        self._run_score(False, outputs, targets, weights, out)

    def _run_score(self, of_classes: bool, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
        (rows, columns), kernel = outputs.shape, _compiled(losses.score_kernel, of_classes, _real(outputs))
        per_block = block_rows(rows, columns)
        blocks = -(-rows // per_block)
        sums = self._scratch("losses", (blocks,), np.float64)
        given: list[Argument] = [outputs, targets, weights, out, sums, rows, columns, per_block]
        self._run(Phase(kernel, [0, *given], blocks, (rows, per_block)), Phase(kernel, [1, *given], 1))

    # --- optimisers (L5) ---------------------------------------------------------------------------------------------

    def clip_factor(
        self, parameters: Array, gradients: Array, weight_count: int, l2: float, maximum_norm: float, out: Array
    ) -> None:
        size, kernel = parameters.size, _compiled(optimizer.clip_kernel, _real(parameters))
        chunks = -(-size // chunk(size))
        sums = self._scratch("norms", (chunks, 2), np.float64)
        given: list[Argument] = [parameters, gradients, out, sums, size, weight_count, chunk(size)]
        given += [float(l2), float(maximum_norm)]
        self._run(Phase(kernel, [0, *given], chunks), Phase(kernel, [1, *given], 1))

    def sgd_step(
        self,
        parameters: Array,
        gradients: Array,
        velocity: Array | None,
        weight_count: int,
        scalars: Array,
        clip: Array | None,
        loss: Array,
        *,
        l2: float,
        momentum: float,
        nesterov: bool,
    ) -> None:
        kernel = _compiled(optimizer.sgd_kernel, _real(parameters))
        size = parameters.size
        given: list[Argument] = [parameters, gradients, velocity, scalars, clip, loss, size, weight_count, chunk(size)]
        given += [nesterov, float(l2), float(momentum)]
        self._run(Phase(kernel, given, -(-size // chunk(size))))

    def adam_step(
        self,
        parameters: Array,
        gradients: Array,
        first_moment: Array,
        second_moment: Array,
        weight_count: int,
        scalars: Array,
        clip: Array | None,
        loss: Array,
        *,
        l2: float,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        kernel = _compiled(optimizer.adam_kernel, _real(parameters))
        size = parameters.size
        arrays = (parameters, gradients, first_moment, second_moment, scalars, clip, loss)
        given: list[Argument] = [*arrays, size, weight_count, chunk(size)]
        given += [float(number) for number in (l2, beta_1, beta_2, epsilon, weight_decay)]
        self._run(Phase(kernel, given, -(-size // chunk(size))))

    # --- data and training -------------------------------------------------------------------------------------------

    def gather_batch(
        self,
        index: Array,
        features: Array | None,
        batch_features: Array,
        targets: Array | None = None,
        batch_targets: Array | None = None,
        weights: Array | None = None,
        batch_weights: Array | None = None,
        first: Array | None = None,
    ) -> None:
        for source, out in ((features, batch_features), (targets, batch_targets), (weights, batch_weights)):
            if source is None or out is None:
                continue
            rows, columns = len(out), int(np.prod(source.shape[1:]))
            if not source.flags.c_contiguous:
                self._run_numpy("gather_batch", index, source, out, first=first)
                continue
            per_block = block_rows(rows, columns)
            given: list[Argument] = [source, index, out, first, rows, columns * source.itemsize, per_block]
            self._run(Phase(_compiled(training.gather_kernel), given, -(-rows // per_block), (rows, per_block)))

    def count_step(
        self,
        loss: Array,
        losses: Array,
        table: Array,
        scalars: Array,
        place: Array,
        steps: Array,
        *,
        rows: int,
        skipped: Array | None = None,
    ) -> None:
        given: list[Argument] = [loss, losses, table, scalars, place, steps, rows, scalars.size, skipped]
        self._run(Phase(_compiled(training.count_kernel, _real(loss)), given, 1))

    def keep_weights(self, source: Array, kept: Array, losses: Array, place: Array, *, every: int) -> None:
        size, kernel = source.size, _compiled(training.keep_kernel, _real(source))
        self._run(Phase(kernel, [source, kept, losses, place, size, chunk(size), every], -(-size // chunk(size))))

    def summarize(self, vector: Array, out: Array, *, weight_count: int) -> None:
        size, kernel = vector.size, _compiled(training.summarize_kernel, _real(vector))
        chunks = -(-size // chunk(size))
        sums = self._scratch("norms", (chunks, 2), np.float64)
        given: list[Argument] = [vector, out, sums, size, weight_count, chunk(size)]
        self._run(Phase(kernel, [0, *given], chunks), Phase(kernel, [1, *given], 1))

    def accumulate_gradients(
        self, gradients: Array, accumulated: Array, loss: Array, mean: Array, *, is_first: bool, is_last: bool
    ) -> None:
        size, kernel = gradients.size, _compiled(training.accumulate_kernel, _real(gradients))
        given: list[Argument] = [gradients, accumulated, loss, mean, size, chunk(size), is_first, is_last]
        self._run(Phase(kernel, [0, *given], -(-size // chunk(size))), Phase(kernel, [1, *given], 1))

    def average_weights(
        self,
        parameters: Array,
        averaged_parameters: Array,
        state: Array,
        averaged_state: Array,
        updates: Array,
        loss: Array,
        *,
        decay: float,
    ) -> None:
        kernel, phases = _compiled(training.average_kernel, _real(parameters)), []
        for phase, values, averaged in (
            (0, parameters, averaged_parameters),
            (0, state, averaged_state),
            (1, None, None),
        ):
            size = 1 if values is None else values.size
            if size:
                given: list[Argument] = [phase, values, averaged, updates, loss, size, chunk(size), float(decay)]
                phases.append(Phase(kernel, given, -(-size // chunk(size))))
        self._run(*phases)


for _name, _member in vars(Backend).items():
    if hasattr(_member, "__wrapped__"):
        setattr(
            CpuBackend, _name, _laid_out(vars(CpuBackend)[_name]) if _name in vars(CpuBackend) else _on_numpy(_name)
        )

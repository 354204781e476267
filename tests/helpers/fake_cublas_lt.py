"""cublasLt on a machine without a GPU: as strict as the real one about what it is told, computing with NumPy.

Its rules are those of the cuBLAS manual (cublasLtMatmulDescAttributes_t, cublasLtEpilogue_t, cublasLtMatmul), of what
nvmath-python, PyTorch and Marian know beside it, and of the real library, which checks the sizes of attributes without
a GPU too. Where the real one may read what it was not given, this one says so.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpunet.verification.storage import BFLOAT16
from tests.helpers import fake_cupy

SUCCESS, NOT_INITIALISED, INVALID_VALUE, NOT_SUPPORTED = 0, 1, 7, 15
EXECUTION_FAILED, MAPPING_ERROR = 13, 11

# Bytes of each attribute that is known here, by number: transpositions, epilogue, bias; auxiliary matrix; bias' dtype.
DESC_ATTRIBUTES = {0: 4, 1: 4, 2: 4, 3: 4, 4: 4, 7: 4, 8: 8, 11: 8, 12: 8, 26: 4}
PREFERENCES = {0: 4, 1: 8, 3: 4, 5: 4, 6: 4, 7: 4, 8: 4}
BIAS, RELU_BIAS, RELU_AUX_BIAS = 4, 6, 134
DRELU, DRELU_BGRAD, BGRADA, BGRADB = 136, 152, 256, 512
EPILOGUES = (1, 2, BIAS, RELU_BIAS, 130, RELU_AUX_BIAS, DRELU, DRELU_BGRAD, BGRADA, BGRADB)
WITH_BIAS = (BIAS, RELU_BIAS, RELU_AUX_BIAS, DRELU_BGRAD, BGRADA, BGRADB)
WITH_MASK = (130, RELU_AUX_BIAS, DRELU, DRELU_BGRAD)
# (compute, scale, A and B, C and D)
TYPES = {
    *((68, 0, kind, out) for kind, out in ((0, 0), (2, 2), (14, 14), (2, 0), (14, 0))),
    (77, 0, 0, 0),
    (70, 1, 1, 1),
}
RESULT_BYTES = 96


class FakeCublasLt:
    """Stands for libcublasLt; the handles are those of a :class:`tests.helpers.fake_cupy.FakeCublas`.

    Attributes
    ----------
    asked : int
        Heuristic queries so far.
    done : list of (epilogue, (rows, columns, inner))
        The products, in cublasLt's order.
    alive : dict
        Descriptors by address.
    loses_nan : bool
        Whether ReLU makes 0 of NaN, which nothing forbids; of the class.
    has_algorithm : callable
        Of epilogue and shape.
    """

    loses_nan = False

    def __init__(self, cublas: Any) -> None:
        self.asked = 0
        self.done: list[tuple[int, tuple[int, int, int]]] = []
        self.alive: dict[int, SimpleNamespace] = {}
        self.fails: dict[str, int] = {}
        self.has_algorithm: Callable[[int, tuple[int, int, int]], bool] = lambda epilogue, shape: True
        self._cublas = cublas
        self._addresses = itertools.count(0x23456789ABC, 16)
        number, address, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
        attribute = [address, number, address, size]
        self._callbacks = []
        for name, function, parameters in (
            ("MatmulDescCreate", self._create_desc, [address, number, number]),
            ("MatmulDescSetAttribute", functools.partial(self._set, DESC_ATTRIBUTES), attribute),
            ("MatmulDescDestroy", self._destroy, [address]),
            ("MatrixLayoutCreate", self._create_layout, [address, number, ctypes.c_uint64, ctypes.c_uint64, size]),
            ("MatrixLayoutDestroy", self._destroy, [address]),
            ("MatmulPreferenceCreate", self._create_preference, [address]),
            ("MatmulPreferenceSetAttribute", functools.partial(self._set, PREFERENCES), attribute),
            ("MatmulPreferenceDestroy", self._destroy, [address]),
            ("MatmulAlgoGetHeuristic", self._heuristic, [*[address] * 7, number, address, address]),
            ("Matmul", self._matmul, [*[address] * 14, size, address]),
        ):
            callback = ctypes.CFUNCTYPE(number, *parameters)(functools.partial(self._call, name, function))
            self._callbacks.append(callback)
            setattr(self, f"cublasLt{name}", ctypes.CDLL(None)._FuncPtr(ctypes.cast(callback, address).value))

    def _call(self, name: str, function: Callable[..., int], *arguments: Any) -> int:
        return self.fails.get(f"cublasLt{name}") or function(*arguments)

    def _create(self, handle: int, **content: Any) -> int:
        address = ctypes.c_void_p.from_address(handle).value = next(self._addresses)
        self.alive[address] = SimpleNamespace(attributes={}, **content)
        return SUCCESS

    def _create_desc(self, handle: int, compute: int, scale: int) -> int:
        return self._create(handle, compute=compute, scale=scale)

    def _create_layout(self, handle: int, kind: int, rows: int, columns: int, step: int) -> int:
        return self._create(handle, kind=kind, rows=rows, columns=columns, step=step)

    def _create_preference(self, handle: int) -> int:
        return self._create(handle)

    def _destroy(self, handle: int) -> int:
        return INVALID_VALUE if self.alive.pop(handle, None) is None else SUCCESS

    def _set(self, sizes: dict[int, int], handle: int, attribute: int, value: int, size: int) -> int:
        if handle not in self.alive or not value or sizes.get(attribute) != size:
            return INVALID_VALUE
        kind = ctypes.c_uint64 if size == 8 else ctypes.c_uint32
        self.alive[handle].attributes[attribute] = kind.from_address(value).value
        return SUCCESS

    # --- what is asked --------------------------------------------------------------------------------------------

    def _problem(self, desc: Any, a: Any, b: Any, c: Any, d: Any) -> tuple[int, tuple[int, int, int]]:
        """Return the status, and rows, columns and inner elements."""
        transpose_a, transpose_b = (desc.attributes.get(attribute, 0) for attribute in (3, 4))
        rows, inner = (a.columns, a.rows) if transpose_a else (a.rows, a.columns)
        inner_b, columns = (b.columns, b.rows) if transpose_b else (b.rows, b.columns)
        shape = rows, columns, inner
        if inner != inner_b or (d.rows, d.columns) != (rows, columns) or (c.rows, c.columns) != (rows, columns):
            return INVALID_VALUE, shape
        if any(matrix.step < matrix.rows for matrix in (a, b, c, d)):
            return INVALID_VALUE, shape
        if (desc.compute, desc.scale, a.kind, d.kind) not in TYPES or b.kind != a.kind or c.kind != d.kind:
            return NOT_SUPPORTED, shape
        return self._epilogue_problem(desc, bool(transpose_a), bool(transpose_b), d, inner), shape

    @staticmethod
    def _epilogue_problem(desc: Any, transpose_a: bool, transpose_b: bool, d: Any, inner: int) -> int:
        epilogue = desc.attributes.get(7, 1)
        if epilogue not in EPILOGUES:
            return INVALID_VALUE
        if epilogue in WITH_BIAS and not desc.attributes.get(8):
            return INVALID_VALUE
        if desc.attributes.get(26, d.kind) != d.kind:  # the bias is of D's type
            return NOT_SUPPORTED
        if epilogue in WITH_MASK:
            mask, step = desc.attributes.get(11), desc.attributes.get(12, 0)
            if not mask or mask % 16 or step % 128 or step < d.rows:
                return INVALID_VALUE
        if (epilogue == BGRADA and transpose_a) or (epilogue == BGRADB and not transpose_b):
            return NOT_SUPPORTED
        if epilogue in (DRELU, DRELU_BGRAD) and inner == 1:
            return NOT_SUPPORTED
        return SUCCESS

    def _heuristic(self, handle: int, *arguments: Any) -> int:
        *handles, preference, wanted, results, count = arguments
        if handle not in self._cublas.open:
            return NOT_INITIALISED
        if not all(one in self.alive for one in (*handles, preference)) or wanted < 1:
            return INVALID_VALUE
        desc, a, b, c, d = (self.alive[one] for one in handles)
        status, shape = self._problem(desc, a, b, c, d)
        if status:
            return status
        self.asked += 1
        epilogue, number = desc.attributes.get(7, 1), ctypes.c_int.from_address(count)
        number.value = 0
        if not self.has_algorithm(epilogue, shape):
            return SUCCESS
        preferences = self.alive[preference].attributes
        # What the algorithm relies on: so much workspace, and such addresses.
        relies = (
            *(id(part) & 0xFFFFFFFF for part in (desc, a, b, d)),
            preferences.get(1, 0),
            *(preferences.get(attribute, 256) for attribute in (5, 6, 8)),
        )
        words = (ctypes.c_uint64 * (RESULT_BYTES // 8)).from_address(results)
        words[:] = [0] * len(words)
        words[:8] = relies
        words[8] = preferences.get(1, 0)
        number.value = 1
        return SUCCESS

    def _matmul(self, handle: int, *arguments: Any) -> int:
        desc, alpha, a, a_layout, b, b_layout, beta, _, c_layout, d, d_layout, algorithm, *rest = arguments
        workspace, workspace_bytes, stream_address = rest
        mine = self._cublas.open.get(handle)
        if mine is None or mine.device != fake_cupy.current.devices[-1]:
            return NOT_INITIALISED
        if not all(one in self.alive for one in (desc, a_layout, b_layout, c_layout, d_layout)) or not algorithm:
            return INVALID_VALUE
        what, left, right, before, out = (self.alive[one] for one in (desc, a_layout, b_layout, c_layout, d_layout))
        status, shape = self._problem(what, left, right, before, out)
        if status:
            return status
        words = (ctypes.c_uint64 * 8).from_address(algorithm)
        if list(words[:4]) != [id(part) & 0xFFFFFFFF for part in (what, left, right, out)]:
            return INVALID_VALUE  # an algorithm of another product
        if workspace_bytes < words[4] or not workspace or workspace % 256:
            return INVALID_VALUE
        if any(address % alignment for address, alignment in zip((a, b, d), words[5:], strict=True)):
            return EXECUTION_FAILED
        epilogue = what.attributes.get(7, 1)
        bias = what.attributes.get(8, 0)
        if epilogue in WITH_BIAS and bias % 16:
            return EXECUTION_FAILED  # "misaligned address": only the GPU notices
        stream = fake_cupy.Stream.by_address[stream_address or 0]
        if stream.device != mine.device or self._cublas._is_freed(mine):
            return MAPPING_ERROR
        kind, out_kind = self._cublas.TYPES[left.kind], self._cublas.TYPES[out.kind]
        matrices = ((a, left, kind), (b, right, kind), (d, out, out_kind))
        places = [(start, layout.step * (layout.columns - 1) + layout.rows, dtype) for start, layout, dtype in matrices]
        if epilogue in WITH_BIAS:
            places.append((bias, shape[0], out_kind))
        if not all(self._cublas._is_inside(start, count * np.dtype(dtype).itemsize) for start, count, dtype in places):
            return EXECUTION_FAILED
        scalar = ctypes.c_double if what.scale == 1 else ctypes.c_float
        if (scalar.from_address(alpha).value, scalar.from_address(beta).value) != (1, 0):
            return NOT_SUPPORTED
        if epilogue not in (1, 2, BIAS, RELU_BIAS):
            return NOT_SUPPORTED  # nobody here asks for more
        transposed = [bool(what.attributes.get(attribute, 0)) for attribute in (3, 4)]
        self.done.append((epilogue, shape))

        def run() -> None:
            wide = np.float64 if what.scale == 1 else np.float32
            factors = []
            for (start, layout, dtype), is_transposed in zip(matrices[:2], transposed, strict=True):
                matrix = fake_cupy._column_major(start, (layout.rows, layout.columns), layout.step, dtype)
                factors.append(fake_cupy._numbers(matrix.T if is_transposed else matrix, wide))
            with np.errstate(all="ignore"):
                result = factors[0] @ factors[1]
                if epilogue in WITH_BIAS:
                    column = fake_cupy._column_major(bias, (shape[0], 1), shape[0], out_kind)
                    result = result + fake_cupy._numbers(column, wide)
                if epilogue in (2, RELU_BIAS):
                    result = np.fmax(result, 0) if self.loses_nan else np.maximum(result, 0)
                there = fake_cupy._column_major(d, (out.rows, out.columns), out.step, out_kind)
                there[...] = BFLOAT16.store(result) if there.dtype == BFLOAT16.dtype else result

        stream.submit(run)
        return SUCCESS

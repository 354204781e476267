"""Matrix products with an epilogue, by cublasLt: the bias is added, and ReLU applied, before a product is stored.

cublasLt is column-major: what is row-major out = op(a) op(b) to us is out^T = op(b)^T op(a)^T to it, so our b is its A,
our a its B, and a row of ours is a column of its D. Its epilogues add a vector of as many elements as D has rows, the
same to every column: to us, one number per column of out, which is what a layer's bias is.

Epilogues that are left alone, and why:

- ``BGRADA``, ``BGRADB``: the sums of a factor, here the bias gradient beside dW. A kernel of its own computes them and
  reads dS again, while :func:`gpunet.backends.cuda.activation.bias_activation_backward` has it in registers.
- ``RELU_AUX`` with ``DRELU`` and ``DRELU_BGRAD``: the forward pass writes a mask, of which the backward pass makes dS
  in the product dX of the layer above. gpunet needs no mask (f' is known from Y), a layer would have to know the
  activation below it, and a product with one inner element is refused.
- ``GELU`` and its kin: the approximation by tanh without our bounds, and what is kept for the backward pass is S + b,
  where a layer keeps S.
"""

from __future__ import annotations

import ctypes
from typing import Any

from gpunet.backends.devices.cublas import (
    DATA_TYPES,
    Cublas,
    Product,
    check_status,
    checked_product,
    declare,
)

# cublasLtMatmulDescAttributes_t
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER = 3, 4, 7, 8
# cublasLtEpilogue_t
EPILOGUE_BIAS, EPILOGUE_RELU_BIAS = 4, 6
# cublasLtMatmulPreferenceAttributes_t
PREF_MAX_WORKSPACE_BYTES = 1
PREF_MIN_ALIGNMENT_A_BYTES, PREF_MIN_ALIGNMENT_B_BYTES = 5, 6
PREF_MIN_ALIGNMENT_C_BYTES, PREF_MIN_ALIGNMENT_D_BYTES = 7, 8

ARCH_MISMATCH, NOT_SUPPORTED = 8, 15

# The preferences' largest; what cublasLt expects of arrays where nothing is said.
LARGEST_ALIGNMENT = 256
# Nothing tells cublasLt how a bias is aligned, and some of its kernels read 16 bytes at a time.
BIAS_ALIGNMENT = 16
# Shapes of products whose descriptors are kept: those of a few networks, each with a few sizes of batch.
PLANS_KEPT = 256


class Algorithm(ctypes.Structure):
    """cublasLtMatmulAlgo_t."""

    _fields_ = (("data", ctypes.c_uint64 * 8),)


class HeuristicResult(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algo", Algorithm),
        ("workspaceSize", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("wavesCount", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


_NUMBER, _ADDRESS, _SIZE = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
_ATTRIBUTE = (_ADDRESS, _NUMBER, _ADDRESS, _SIZE)
SIGNATURES: dict[str, tuple[type[Any], ...]] = {
    "cublasLtMatmulDescCreate": (_ADDRESS, _NUMBER, _NUMBER),
    "cublasLtMatmulDescSetAttribute": _ATTRIBUTE,
    "cublasLtMatmulDescDestroy": (_ADDRESS,),
    "cublasLtMatrixLayoutCreate": (_ADDRESS, _NUMBER, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64),
    "cublasLtMatrixLayoutDestroy": (_ADDRESS,),
    "cublasLtMatmulPreferenceCreate": (_ADDRESS,),
    "cublasLtMatmulPreferenceSetAttribute": _ATTRIBUTE,
    "cublasLtMatmulPreferenceDestroy": (_ADDRESS,),
    "cublasLtMatmulAlgoGetHeuristic": (*(_ADDRESS,) * 7, _NUMBER, _ADDRESS, _ADDRESS),
    "cublasLtMatmul": (*(_ADDRESS,) * 14, _SIZE, _ADDRESS),
}


class CublasLt:
    """Products with an epilogue, on the stream of a cuBLAS handle and in its workspace.

    Which algorithm computes a product is asked once for each shape, layout, dtype, alignment and epilogue, and kept:
    cublasLt decides it on the host, so nothing of this depends on, or holds up, a step that is being recorded.

    Parameters
    ----------
    library : ctypes.CDLL
        libcublasLt.
    blas : Cublas
        To be closed after this one.

    Raises
    ------
    DeviceError
        The library lacks a function.
    """

    def __init__(self, library: Any, blas: Cublas) -> None:
        declare(library, SIGNATURES)
        self._library, self._blas = library, blas
        self._plans: dict[tuple[Any, ...], _Plan | None] = {}

    def close(self) -> None:
        """Let go of the descriptors."""
        for plan in self._plans.values():
            if plan is not None:
                plan.close()
        self._plans = {}

    def gemm_bias(
        self,
        a: Any,
        b: Any,
        bias: Any,
        out: Any,
        transpose_a: bool = False,
        transpose_b: bool = False,
        relu: bool = False,
        precision: str = "float32",
    ) -> bool:
        """Compute out = op(a) op(b) + bias, or max(0, op(a) op(b) + bias), if cublasLt does that in these arrays.

        Parameters
        ----------
        a, b, out, transpose_a, transpose_b, precision
            As in :meth:`Cublas.gemm`.
        bias : device array, (m,)
            One number for each column of out.
        relu : bool

        Returns
        -------
        bool
            False where nothing was done: the bias has another dtype than out or is not aligned to 16 bytes, or there is
            no algorithm.

        Raises
        ------
        ValueError
            Shapes, dtypes or the precision do not fit.
        DeviceError
            cublasLt refuses.
        """
        product = checked_product(a, b, out, transpose_a, transpose_b, precision)
        if bias.shape != (product.columns,):
            raise ValueError(f"gemm into {out.shape} with a bias of shape {bias.shape}")
        if bias.dtype != out.dtype or bias.data.ptr % BIAS_ALIGNMENT:
            return False
        alignments = tuple(_alignment(array) for array in (b, a, out, bias))
        key = (product, transpose_a, transpose_b, relu, alignments)
        if key not in self._plans:
            if len(self._plans) >= PLANS_KEPT:
                self.close()
            self._plans[key] = self._plan(*key, bias.data.ptr)
        plan = self._plans[key]
        if plan is None:
            return False
        plan.set_bias(bias.data.ptr)
        if plan.run(self._blas, b.data.ptr, a.data.ptr, out.data.ptr):
            return True
        plan.close()
        self._plans[key] = None
        return False

    def _plan(
        self,
        product: Product,
        transpose_a: bool,
        transpose_b: bool,
        relu: bool,
        alignments: tuple[int, ...],
        bias: int,
    ) -> _Plan | None:
        plan = _Plan(self._library, product, transpose_a, transpose_b, relu)
        plan.set_bias(bias)  # first: how it is aligned counts
        if plan.choose(self._blas, alignments):
            return plan
        plan.close()
        return None


class _Plan:
    """The descriptors of a product in cublasLt's order, and its algorithm."""

    def __init__(self, library: Any, product: Product, transpose_a: bool, transpose_b: bool, relu: bool) -> None:
        self._library = library
        self._handles: list[tuple[str, int]] = []
        kind, out_kind = DATA_TYPES[product.kind], DATA_TYPES[product.out_kind]
        scale = DATA_TYPES["float64" if product.scalar is ctypes.c_double else "float32"]
        self._operation = self._new("MatmulDesc", product.compute, scale)
        rows, columns, inner = product.columns, product.rows, product.inner
        self._a = self._matrix(kind, *((inner, rows) if transpose_b else (rows, inner)))
        self._b = self._matrix(kind, *((columns, inner) if transpose_a else (inner, columns)))
        self._d = self._matrix(out_kind, rows, columns)
        self._set(DESC_TRANSA, ctypes.c_int32(transpose_b))
        self._set(DESC_TRANSB, ctypes.c_int32(transpose_a))
        self._set(DESC_EPILOGUE, ctypes.c_uint32(EPILOGUE_RELU_BIAS if relu else EPILOGUE_BIAS))
        self._alpha, self._beta = product.scalar(1), product.scalar(0)
        self._algorithm = Algorithm()

    def close(self) -> None:
        """Destroy the descriptors, which a product that was asked for needs no more."""
        for kind, handle in self._handles:
            self._call(f"{kind}Destroy", handle)
        self._handles = []

    def set_bias(self, address: int) -> None:
        """Say where the bias is."""
        self._set(DESC_BIAS_POINTER, ctypes.c_void_p(address))

    def choose(self, blas: Cublas, alignments: tuple[int, ...]) -> bool:
        """Ask for an algorithm, and return whether there is one.

        Parameters
        ----------
        blas : Cublas
        alignments : tuple of int
            Of A, B and D, and more.
        """
        preference = self._new("MatmulPreference")
        a, b, d, *_ = alignments
        wanted = {
            PREF_MAX_WORKSPACE_BYTES: ctypes.c_uint64(blas.workspace_bytes),
            PREF_MIN_ALIGNMENT_A_BYTES: ctypes.c_uint32(a),
            PREF_MIN_ALIGNMENT_B_BYTES: ctypes.c_uint32(b),
            PREF_MIN_ALIGNMENT_C_BYTES: ctypes.c_uint32(d),
            PREF_MIN_ALIGNMENT_D_BYTES: ctypes.c_uint32(d),
        }
        for attribute, value in wanted.items():
            self._call("MatmulPreferenceSetAttribute", preference, attribute, _address(value), ctypes.sizeof(value))
        result, count = HeuristicResult(), ctypes.c_int(0)
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            blas.handle,
            self._operation,
            self._a,
            self._b,
            self._d,
            self._d,
            preference,
            1,
            _address(result),
            _address(count),
        )
        if status in (ARCH_MISMATCH, NOT_SUPPORTED) or (status == 0 and count.value == 0):
            return False
        check_status("cublasLtMatmulAlgoGetHeuristic", status)
        self._algorithm = result.algo
        return result.state == 0

    def run(self, blas: Cublas, a: int, b: int, d: int) -> bool:
        """Ask for the product, and return whether the device has it; with beta = 0, nothing of C is read."""
        status = self._library.cublasLtMatmul(
            blas.handle,
            self._operation,
            _address(self._alpha),
            a,
            self._a,
            b,
            self._b,
            _address(self._beta),
            d,
            self._d,
            d,
            self._d,
            _address(self._algorithm),
            blas.workspace.ptr,
            blas.workspace_bytes,
            blas.stream.ptr,
        )
        if status in (ARCH_MISMATCH, NOT_SUPPORTED):
            return False
        check_status("cublasLtMatmul", status)
        return True

    def _matrix(self, kind: int, rows: int, columns: int) -> int:
        """Return a layout without gaps: the rows of a matrix of ours follow one another."""
        return self._new("MatrixLayout", kind, rows, columns, rows)

    def _new(self, kind: str, *arguments: Any) -> int:
        handle = ctypes.c_void_p()
        self._call(f"{kind}Create", _address(handle), *arguments)
        assert handle.value is not None
        self._handles.append((kind, handle.value))
        return handle.value

    def _set(self, attribute: int, value: Any) -> None:
        self._call("MatmulDescSetAttribute", self._operation, attribute, _address(value), ctypes.sizeof(value))

    def _call(self, function: str, *arguments: Any) -> None:
        check_status(f"cublasLt{function}", getattr(self._library, f"cublasLt{function}")(*arguments))


def _address(value: Any) -> int:
    return ctypes.addressof(value)


def _alignment(array: Any) -> int:
    """Return the largest power of two, up to 256, that the address of an array is a multiple of."""
    address = int(array.data.ptr)
    return min(address & -address, LARGEST_ALIGNMENT)

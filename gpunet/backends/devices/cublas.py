"""Matrix products by cuBLAS, called through ctypes.

Why not CuPy's own wrappers: they refuse to run while a stream is captured, choose the precision per process, and offer
neither accumulation nor transposes without copies for half precision. Why not nvmath-python: its bindings would add a
dependency of 48 MB whose cuBLAS module is marked experimental, for five functions of a C interface that has been
stable for years; a call through ctypes costs about 2 µs on the host, and nothing once a step is one CUDA graph.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gpunet.errors import DeviceError

# cudaDataType, cublasComputeType_t and cublasGemmAlgo_t of library_types.h and cublas_api.h.
# Arrays of uint16 hold the bits of bfloat16, which NumPy lacks.
_DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14, "uint16": 14}
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_32F_FAST_TF32 = 68, 70, 77
_ALGORITHM_DEFAULT = -1

_STATUS = {
    1: "the library is not initialised",
    3: "the device has no memory left",
    7: "invalid value",
    8: "the device's architecture lacks the operation",
    11: "an access to device memory failed",
    13: "the operation failed on the device",
    14: "an internal operation failed",
    15: "the operation is not supported",
}

WORKSPACE_BYTES = 4 * 1024 * 1024
WORKSPACE_BYTES_HOPPER = 32 * 1024 * 1024

PRECISIONS = ("float32", "tf32")


def load_cublas(cupy: ModuleType) -> ctypes.CDLL:
    """Return cuBLAS of the CUDA version that CuPy's runtime has; the process has one copy of it.

    Wheels of two CUDA versions may be installed side by side, and then cuda-pathfinder finds one of them.

    Raises
    ------
    DeviceError
        It is not installed, not found, or not loadable.
    """
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    problem: Exception | None = None
    for path in _cublas_paths(name):
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            problem = error
    raise DeviceError(f"cuBLAS of CUDA {major} cannot be loaded: {problem}") from problem


def _cublas_paths(name: str) -> Iterator[str]:
    with contextlib.suppress(Exception):  # not installed, not found, or not loadable
        from cuda.pathfinder import load_nvidia_dynamic_lib  # CuPy depends on it

        path = load_nvidia_dynamic_lib("cublas").abs_path
        if Path(path).name.startswith(name):
            yield path
    wheels = importlib.util.find_spec("nvidia")
    for folder in (wheels.submodule_search_locations or ()) if wheels else ():
        yield from map(str, Path(folder).glob(f"*/*/{name}"))
    yield name


class Cublas:
    """A cuBLAS handle on one stream, with a workspace of its own.

    Without a workspace, cuBLAS would allocate one inside a captured step. The owner calls :meth:`close`; at the end of
    the process the driver takes the handle back.

    Parameters
    ----------
    library : ctypes.CDLL
        libcublas.
    stream : object
        A CUDA stream, kept as long as the handle; ``ptr`` is its address.
    workspace : object
        Device memory, kept likewise; ``ptr`` is its address, a multiple of 256.
    workspace_bytes : int
        Its size.

    Raises
    ------
    DeviceError
        cuBLAS refuses.
    """

    def __init__(self, library: Any, stream: Any, workspace: Any, workspace_bytes: int) -> None:
        _declare(library)
        handle = ctypes.c_void_p()
        _check("cublasCreate", library.cublasCreate_v2(ctypes.byref(handle)))
        self._library, self._handle = library, handle.value
        self._stream, self._workspace = stream, workspace
        # Setting the stream takes the workspace away: this order matters.
        _check("cublasSetStream", library.cublasSetStream_v2(self._handle, stream.ptr))
        _check(
            "cublasSetWorkspace",
            library.cublasSetWorkspace_v2(self._handle, workspace.ptr, workspace_bytes),
        )
        self._scalars = {
            kind: {value: kind(value) for value in (0.0, 1.0)} for kind in (ctypes.c_float, ctypes.c_double)
        }

    def close(self) -> None:
        """Destroy the handle, which waits for the device, and let go of the workspace."""
        self._library.cublasDestroy_v2(self._handle)
        self._workspace = None

    def gemm(
        self,
        a: Any,
        b: Any,
        out: Any,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
        precision: str = "float32",
    ) -> None:
        """Compute out = op(a) op(b), or out + op(a) op(b), on row-major device matrices with contiguous rows.

        cuBLAS is column-major: what is row-major out = op(a) op(b) to us is out^T = op(b)^T op(a)^T to it, with each
        matrix read as its transpose, so the factors change places and nothing is copied.

        Parameters
        ----------
        a, b : device array, (n, k) and (k, m) after their transposition
            float16, bfloat16, float32 or float64, of one dtype; uint16 stands for bfloat16.
        out : device array, (n, m)
            Of the same dtype, or float32 for half-precision factors.
        precision : str
            ``"tf32"`` uses 10 bits of the mantissas of float32 factors, for the tensor cores. Half-precision products
            are summed in float32.
        """
        rows, inner = a.shape[::-1] if transpose_a else a.shape
        inner_b, columns = b.shape[::-1] if transpose_b else b.shape
        if inner != inner_b or out.shape != (rows, columns):
            raise ValueError(f"gemm of {(rows, inner)} by {(inner_b, columns)} into {out.shape}, after transposition")
        kind, out_kind = a.dtype.name, out.dtype.name
        half = kind in ("float16", "bfloat16", "uint16")
        if (
            b.dtype.name != kind
            or kind not in _DATA_TYPES
            or not (out_kind == kind or (half and out_kind == "float32"))
        ):
            raise ValueError(f"gemm of {kind} by {b.dtype.name} into {out_kind}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision: {precision!r} is not one of {PRECISIONS}")
        if kind == "float64":
            compute, scalars = _COMPUTE_64F, self._scalars[ctypes.c_double]
        else:
            fast = precision == "tf32" and not half
            compute, scalars = _COMPUTE_32F_FAST_TF32 if fast else _COMPUTE_32F, self._scalars[ctypes.c_float]
        status = self._library.cublasGemmEx(
            self._handle,
            int(transpose_b),
            int(transpose_a),
            columns,
            rows,
            inner,
            ctypes.addressof(scalars[1.0]),
            b.data.ptr,
            _DATA_TYPES[kind],
            _leading_dimension(b),
            a.data.ptr,
            _DATA_TYPES[kind],
            _leading_dimension(a),
            ctypes.addressof(scalars[1.0 if accumulate else 0.0]),
            out.data.ptr,
            _DATA_TYPES[out_kind],
            _leading_dimension(out),
            compute,
            _ALGORITHM_DEFAULT,
        )
        _check("cublasGemmEx", status)


def _leading_dimension(matrix: Any) -> int:
    """Return the elements from one row to the next."""
    return int(matrix.strides[0] // matrix.itemsize) if matrix.shape[0] > 1 else int(matrix.shape[1])


def _declare(library: Any) -> None:
    """Tell ctypes the parameters; without this it would pass addresses as 32-bit integers."""
    number, address, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
    matrix = [address, number, number]
    signatures = {
        "cublasCreate_v2": [address],
        "cublasDestroy_v2": [address],
        "cublasSetStream_v2": [address, address],
        "cublasSetWorkspace_v2": [address, address, size],
        "cublasGemmEx": [
            *[address, number, number, number, number, number, address],
            *matrix,
            *matrix,
            address,
            *matrix,
            number,
            number,
        ],
    }
    for name, parameters in signatures.items():
        function = getattr(library, name)
        function.argtypes, function.restype = parameters, number


def _check(function: str, status: int) -> None:
    if status != 0:
        raise DeviceError(f"{function} failed with status {status}: {_STATUS.get(status, 'see the cuBLAS manual')}.")

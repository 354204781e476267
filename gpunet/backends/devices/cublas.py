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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from gpunet.errors import DeviceError

# cudaDataType, cublasComputeType_t and cublasGemmAlgo_t of library_types.h and cublas_api.h.
# Arrays of uint16 hold the bits of bfloat16, which NumPy lacks.
DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14, "uint16": 14}
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
ALGORITHM_DEFAULT = -1

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
    return _load(cupy, "cublas")


def load_cublas_lt(cupy: ModuleType, cublas: ctypes.CDLL) -> ctypes.CDLL:
    """Return the cublasLt that ``cublas`` itself is linked with: a handle of cuBLAS is one of that copy only.

    Raises
    ------
    DeviceError
        It is not found.
    """
    # Elsewhere than on Windows, the names of a library are looked for in those that it is linked with, too.
    return _load(cupy, "cublasLt") if sys.platform == "win32" else cublas


def _load(cupy: ModuleType, library: str) -> ctypes.CDLL:
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    name = f"{library}64_{major}.dll" if sys.platform == "win32" else f"lib{library}.so.{major}"
    problem: Exception | None = None
    for path in _paths(library, name):
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            problem = error
    raise DeviceError(f"cuBLAS of CUDA {major} cannot be loaded: {problem}") from problem


def _paths(library: str, name: str) -> Iterator[str]:
    with contextlib.suppress(Exception):  # not installed, not found, or not loadable
        from cuda.pathfinder import load_nvidia_dynamic_lib  # CuPy depends on it

        path = load_nvidia_dynamic_lib(library).abs_path
        if Path(path).name.startswith(name):
            yield path
    wheels = importlib.util.find_spec("nvidia")
    for folder in (wheels.submodule_search_locations or ()) if wheels else ():
        yield from map(str, Path(folder).glob(f"*/*/{name}"))
    yield name


class Product(NamedTuple):
    """What is asked for by out = op(a) op(b), once it is known to fit.

    Attributes
    ----------
    rows, columns, inner : int
        out is (rows, columns), op(a) is (rows, inner).
    kind, out_kind : str
        Names of the dtypes of the factors and of out.
    compute : int
        cublasComputeType_t.
    """

    rows: int
    columns: int
    inner: int
    kind: str
    out_kind: str
    compute: int

    @property
    def scalar(self) -> type[ctypes.c_float | ctypes.c_double]:
        """The type of alpha and beta."""
        return ctypes.c_double if self.compute == COMPUTE_64F else ctypes.c_float


def checked_product(a: Any, b: Any, out: Any, transpose_a: bool, transpose_b: bool, precision: str) -> Product:
    """Return what :meth:`Cublas.gemm` is asked for.

    Raises
    ------
    ValueError
        Shapes, dtypes or the precision do not fit.
    """
    rows, inner = a.shape[::-1] if transpose_a else a.shape
    inner_b, columns = b.shape[::-1] if transpose_b else b.shape
    if inner != inner_b or out.shape != (rows, columns):
        raise ValueError(f"gemm of {(rows, inner)} by {(inner_b, columns)} into {out.shape}, after transposition")
    kind, out_kind = a.dtype.name, out.dtype.name
    half = kind in ("float16", "bfloat16", "uint16")
    if b.dtype.name != kind or kind not in DATA_TYPES or not (out_kind == kind or (half and out_kind == "float32")):
        raise ValueError(f"gemm of {kind} by {b.dtype.name} into {out_kind}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision: {precision!r} is not one of {PRECISIONS}")
    if kind == "float64":
        compute = COMPUTE_64F
    else:
        compute = COMPUTE_32F_FAST_TF32 if precision == "tf32" and not half else COMPUTE_32F
    return Product(rows, columns, inner, kind, out_kind, compute)


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
        cuBLAS refuses, or lacks a function.

    Attributes
    ----------
    handle : int
        A cublasHandle_t, which is a cublasLtHandle_t as well.
    stream, workspace, workspace_bytes
        As given.
    """

    def __init__(self, library: Any, stream: Any, workspace: Any, workspace_bytes: int) -> None:
        declare(library, SIGNATURES)
        handle = ctypes.c_void_p()
        check_status("cublasCreate", library.cublasCreate_v2(ctypes.byref(handle)))
        self._library, self.handle = library, handle.value
        self.stream, self.workspace, self.workspace_bytes = stream, workspace, workspace_bytes
        # Setting the stream takes the workspace away: this order matters.
        check_status("cublasSetStream", library.cublasSetStream_v2(self.handle, stream.ptr))
        check_status(
            "cublasSetWorkspace",
            library.cublasSetWorkspace_v2(self.handle, workspace.ptr, workspace_bytes),
        )
        self._scalars = {
            kind: {value: kind(value) for value in (0.0, 1.0)} for kind in (ctypes.c_float, ctypes.c_double)
        }

    def close(self) -> None:
        """Destroy the handle, which waits for the device, and let go of the workspace."""
        self._library.cublasDestroy_v2(self.handle)
        self.workspace = None

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
        product = checked_product(a, b, out, transpose_a, transpose_b, precision)
        scalars = self._scalars[product.scalar]
        status = self._library.cublasGemmEx(
            self.handle,
            int(transpose_b),
            int(transpose_a),
            product.columns,
            product.rows,
            product.inner,
            ctypes.addressof(scalars[1.0]),
            b.data.ptr,
            DATA_TYPES[product.kind],
            leading_dimension(b),
            a.data.ptr,
            DATA_TYPES[product.kind],
            leading_dimension(a),
            ctypes.addressof(scalars[1.0 if accumulate else 0.0]),
            out.data.ptr,
            DATA_TYPES[product.out_kind],
            leading_dimension(out),
            product.compute,
            ALGORITHM_DEFAULT,
        )
        check_status("cublasGemmEx", status)


def leading_dimension(matrix: Any) -> int:
    """Return the elements from one row to the next."""
    return int(matrix.strides[0] // matrix.itemsize) if matrix.shape[0] > 1 else int(matrix.shape[1])


_NUMBER, _ADDRESS = ctypes.c_int, ctypes.c_void_p
_MATRIX = (_ADDRESS, _NUMBER, _NUMBER)
# The parameters of each function; every one returns a cublasStatus_t.
SIGNATURES: dict[str, tuple[type[Any], ...]] = {
    "cublasCreate_v2": (_ADDRESS,),
    "cublasDestroy_v2": (_ADDRESS,),
    "cublasSetStream_v2": (_ADDRESS, _ADDRESS),
    "cublasSetWorkspace_v2": (_ADDRESS, _ADDRESS, ctypes.c_size_t),
    "cublasGemmEx": (
        *(_ADDRESS, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _ADDRESS),
        *_MATRIX,
        *_MATRIX,
        _ADDRESS,
        *_MATRIX,
        _NUMBER,
        _NUMBER,
    ),
}


def declare(library: Any, signatures: Mapping[str, Sequence[type[Any]]]) -> None:
    """Tell ctypes the parameters; without this it would pass addresses as 32-bit integers.

    Raises
    ------
    DeviceError
        The library lacks one of the functions.
    """
    for name, parameters in signatures.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise DeviceError(f"cuBLAS lacks the function {name}") from None
        function.argtypes, function.restype = parameters, _NUMBER


def check_status(function: str, status: int) -> None:
    """Raise where a function of cuBLAS has failed.

    Raises
    ------
    DeviceError
    """
    if status != 0:
        raise DeviceError(f"{function} failed with status {status}: {_STATUS.get(status, 'see the cuBLAS manual')}.")

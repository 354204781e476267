"""NVRTC, NVIDIA's run-time compiler, through ctypes: compiles without a driver, where CuPy asks for one."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpunet.backends.cuda.kernel_library import OPTIONS
from gpunet.backends.devices.device import KernelCompileError
from gpunet.errors import require_package

# CuPy appends these to the options of every module, after those of the caller.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
# Makes the assembler tell about registers and spills in the log.
VERBOSE_ASSEMBLER = "--ptxas-options=-v"

# In the folder that the packages of one CUDA version share.
_LIBRARY = "bin/x86_64/nvrtc64_*_0.dll" if sys.platform == "win32" else "lib/libnvrtc.so.*"


@dataclass(frozen=True)
class CompiledModule:
    """What NVRTC made of a source.

    Attributes
    ----------
    log : str
        What the compiler and the assembler said.
    symbols : dict
        From C++ names (``"sgd_step<float, 4, true>"``) to those of the object file.
    ptx : str
        What it was assembled from.
    cubin : bytes
        The object file.
    """

    log: str
    symbols: dict[str, str]
    ptx: str
    cubin: bytes


class Nvrtc:
    """The NVRTC library of the installed ``nvidia-*`` packages; may be used by several threads.

    Attributes
    ----------
    version : str
        ``"13.5"``.
    architectures : tuple of int
        Compute capabilities that it compiles for: 90 is sm_90.

    Raises
    ------
    MissingDependencyError
        The library or the headers of the CUDA runtime are not installed.
    """

    def __init__(self) -> None:
        library, headers = _locate()
        self._headers = headers
        self._library = ctypes.CDLL(str(library))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = f"{major.value}.{minor.value}"
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        numbers = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(numbers))
        self.architectures = tuple(numbers)

    def compile(self, source: str, expressions: Sequence[str], architecture: int, name: str) -> CompiledModule:
        """Compile CUDA C++ with the options of the run-time path.

        Parameters
        ----------
        source : str
        expressions : sequence of str
            C++ names of the kernels, with template arguments.
        architecture : int
            90 for sm_90.
        name : str
            File name for messages.

        Raises
        ------
        KernelCompileError
        """
        library = self._library
        program = ctypes.c_void_p()
        self._check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
        try:
            for expression in expressions:
                self._check(library.nvrtcAddNameExpression(program, expression.encode()))
            options = [
                option.encode()
                for option in (
                    *OPTIONS,
                    *CUPY_OPTIONS,
                    f"-I{self._headers}",
                    f"-arch=sm_{architecture}",
                    VERBOSE_ASSEMBLER,
                )
            ]
            status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            log = self._read_text(program, "ProgramLog")
            if status != 0:
                raise KernelCompileError(log.strip() or self._message(status))
            symbols = self._symbols(program, expressions)
            return CompiledModule(log, symbols, self._read_text(program, "PTX"), self._read(program, "CUBIN"))
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _symbols(self, program: ctypes.c_void_p, expressions: Sequence[str]) -> dict[str, str]:
        symbols = {}
        for expression in expressions:
            lowered = ctypes.c_char_p()
            self._check(self._library.nvrtcGetLoweredName(program, expression.encode(), ctypes.byref(lowered)))
            symbols[expression] = (lowered.value or b"").decode()
        return symbols

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        content = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, content))
        return content.raw

    def _read_text(self, program: ctypes.c_void_p, what: str) -> str:
        return self._read(program, what).rstrip(b"\0").decode(errors="replace")

    def _check(self, status: int) -> None:
        if status != 0:
            raise KernelCompileError(self._message(status))

    def _message(self, status: int) -> str:
        message: bytes = self._library.nvrtcGetErrorString(status)
        return message.decode()


def toolkit_folders() -> list[Path]:
    """Return the folders of the ``nvidia-*`` packages, one for each CUDA version from 13 on, the newest first."""
    found = importlib.util.find_spec("nvidia")
    shared = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    return sorted((path for folder in shared for path in folder.glob("cu[0-9]*")), key=lambda path: path.name)[::-1]


def _locate() -> tuple[Path, Path]:
    """Return the library and the folder of the headers."""
    for folder in toolkit_folders():
        for library in folder.glob(_LIBRARY):
            if not (folder / "include" / "cuda_fp16.h").is_file():
                raise require_package("nvidia-cuda-runtime", extra="kernels", purpose="compiling kernels")
            return library, folder / "include"
    raise require_package("nvidia-cuda-nvrtc", extra="kernels", purpose="compiling kernels")


@functools.cache
def nvrtc() -> Nvrtc:
    """Return the library, loaded once.

    Raises
    ------
    MissingDependencyError
    """
    return Nvrtc()

"""Compile CUDA C++ with g++ into a shared library, and launch the kernels in it.

The structures here mirror those of the same names in ``interface.hpp``.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gpunet.backends.devices.device import KernelCompileError
from gpunet.files import write_text

HEADER_FOLDER = Path(__file__).resolve().parent
LANGUAGE_FLAGS = (
    "-std=c++20",
    "-shared",
    "-fPIC",
    "-fno-exceptions",
    "-fno-rtti",
    # Results must not depend on the machine or the optimiser: one rounding per written operation.
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    # Two modules that instantiate one template name must not share its static variables.
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-fno-threadsafe-statics",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-sign-compare",
)
CHECKED_FLAGS = (
    "-Og",
    # checks.hpp has the handlers, so the static library adds nothing, while the dynamic one would be a dependency.
    "-fsanitize=null,alignment,bounds,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
    "-static-libubsan",
    "-Werror=frame-larger-than=49152",
)
SANITIZED_FLAGS = (
    "-O1",
    "-g",
    "-DGPUNET_EMULATION_SANITIZED",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Werror=frame-larger-than=196608",
)
ERROR_LINES = 20
_LAUNCH_BOUNDS = re.compile(r"__launch_bounds__\s*\(")
MESSAGE_BYTES = 2048

# Kernels keep their state (current thread, shared memory) in the library, and one that hangs must leave the
# interpreter free for a test time-out: so the lock, and not the interpreter's own, keeps launches apart.
_launch_lock = threading.Lock()


class EmulationError(RuntimeError):
    """What a real device would report as an error of the driver, the compiler or the launch."""


class EmulationCompileError(EmulationError, KernelCompileError):
    """What the compiler refuses, as every device reports it."""


class _Parameter(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int32),
        ("bytes", ctypes.c_int32),
        ("pointee_kind", ctypes.c_int32),
        ("pointee_bytes", ctypes.c_int32),
        ("pointee_constant", ctypes.c_int32),
    ]


class _Kernel(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("parameters", ctypes.POINTER(_Parameter)),
        ("parameter_count", ctypes.c_int64),
    ]


class _Request(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("cluster", ctypes.c_uint32 * 3),
        ("cooperative", ctypes.c_uint32),
        ("resident_blocks", ctypes.c_uint32),
        ("order", ctypes.c_uint32),
        ("dynamic_shared_bytes", ctypes.c_uint64),
        ("shared_bytes_limit", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("stacks", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("message_bytes", ctypes.c_uint64),
    ]


KINDS = ("structure", "integer", "floating", "pointer")  # emulation::Kind
# Which of the threads that can run goes on; emulation::Order has what each means.
ORDERS = ("shuffled", "round_robin", "warp_ahead", "warp_behind", "lane_behind", "block_ahead", "reversed")
# Where the threads' stacks are, for the modules with and without the sanitizers, whose stacks differ.
_stacks = {sanitize: (ctypes.c_void_p * 64)() for sanitize in (False, True)}  # emulation::Stacks


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel, as the compiler sees it.

    Attributes
    ----------
    kind : str
        One of ``KINDS``.
    size : int
        Bytes.
    pointee_kind, pointee_size, pointee_constant
        The same of what a pointer points to, and whether it is ``const``.
    """

    kind: str
    size: int
    pointee_kind: str
    pointee_size: int
    pointee_constant: bool

    def refusal(self, argument: object) -> str | None:
        """Say why `argument` cannot be passed for this parameter; None when it can."""
        if isinstance(argument, np.ndarray):
            if self.kind != "pointer":
                return f"is an array, but the kernel takes {self}"
            if not self.pointee_constant and not argument.flags.writeable:
                return f"is a read-only array, but the kernel takes {self}"
            plain = self.pointee_kind in ("integer", "floating")
            if plain and (_kind_of(argument.dtype), argument.itemsize) != (self.pointee_kind, self.pointee_size):
                return f"is an array of {argument.dtype}, but the kernel takes {self}"
            return None
        if isinstance(argument, np.generic):
            is_null = self.kind == "pointer" and argument.dtype == np.uint64 and argument == 0
            fits = self.kind != "structure" and (_kind_of(argument.dtype), argument.itemsize) == (self.kind, self.size)
            if not fits and not is_null:
                return f"is a {argument.dtype} scalar, but the kernel takes {self}"
            return None
        if isinstance(argument, (bool, int, float)):
            return (
                f"is a plain Python {type(argument).__name__}, which CuPy would pass as 64 bits: "
                f"give a NumPy scalar such as np.int32; the kernel takes {self}"
            )
        return f"is a {type(argument).__name__}: pass a device array or a NumPy scalar"

    def __str__(self) -> str:
        if self.kind != "pointer":
            return f"{self.kind} of {self.size} bytes"
        constant = "const " if self.pointee_constant else ""
        size = f" of {self.pointee_size} bytes" if self.pointee_size else ""
        return f"a pointer to {constant}{self.pointee_kind}{size}"


def _kind_of(dtype: np.dtype) -> str:
    return {"b": "integer", "i": "integer", "u": "integer", "f": "floating"}.get(dtype.kind, "structure")


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel: give it to :meth:`EmulatedDevice.launch`.

    Attributes
    ----------
    name : str
        The C++ name expression it was loaded by.
    parameters : tuple of Parameter
    """

    name: str
    parameters: tuple[Parameter, ...]
    _library: ctypes.CDLL = field(repr=False)
    _address: int = field(repr=False)
    _sanitize: bool = field(repr=False)

    def check_arguments(self, arguments: Sequence[object]) -> None:
        """Raise TypeError unless `arguments` fit the signature in number, kind and size."""
        if len(arguments) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, but {len(arguments)} were given")
        for position, (parameter, argument) in enumerate(zip(self.parameters, arguments, strict=True)):
            refusal = parameter.refusal(argument)
            if refusal is not None:
                raise TypeError(f"{self.name}: argument {position} {refusal}")

    def run(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        cluster: tuple[int, int, int],
        cooperative: bool,
        shared_memory: int,
        shared_memory_limit: int,
        values: Sequence[bytes],
        resident_blocks: int,
        order: str,
        seed: int,
    ) -> None:
        """Run every thread of the grid; `values` are the arguments' bytes, as the kernel's parameters hold them."""
        slots = (ctypes.c_uint64 * len(values))()
        pointers = (ctypes.c_void_p * len(values))()
        for position, value in enumerate(values):
            slot = ctypes.addressof(slots) + position * ctypes.sizeof(ctypes.c_uint64)
            pointers[position] = slot
            ctypes.memmove(slot, value, len(value))
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        request = _Request(
            kernel=self._address,
            arguments=ctypes.addressof(pointers),
            grid=grid,
            block=block,
            cluster=cluster,
            cooperative=cooperative,
            resident_blocks=resident_blocks,
            order=ORDERS.index(order),
            dynamic_shared_bytes=shared_memory,
            shared_bytes_limit=shared_memory_limit,
            seed=seed,
            stacks=ctypes.addressof(_stacks[self._sanitize]),
            message=ctypes.cast(message, ctypes.c_char_p),
            message_bytes=MESSAGE_BYTES,
        )
        with _launch_lock:
            failed = self._library.gpunet_launch(ctypes.byref(request))
        if failed:
            raise EmulationError(message.value.decode(errors="replace"))


def load_module(
    source: str, options: Sequence[str], kernels: Sequence[str], name: str, sanitize: bool
) -> Mapping[str, Kernel]:
    """Compile `source`, or take the library of an earlier compilation, and return its kernels by name."""
    library = ctypes.CDLL(str(_compile(source, options, kernels, name, sanitize)))
    table = (_Kernel * len(kernels)).in_dll(library, "gpunet_kernels")
    loaded = {}
    for kernel, entry in zip(kernels, table, strict=True):
        parameters = tuple(
            Parameter(
                KINDS[parameter.kind],
                parameter.bytes,
                KINDS[parameter.pointee_kind],
                parameter.pointee_bytes,
                bool(parameter.pointee_constant),
            )
            for parameter in entry.parameters[: entry.parameter_count]
        )
        loaded[kernel] = Kernel(kernel, parameters, library, ctypes.addressof(entry), sanitize)
    return loaded


def _with_launch_bounds(source: str) -> str:
    """Repeat what a kernel has in ``__launch_bounds__`` at its head, where its template arguments have their values."""
    parts, rest = [], source
    while (found := _LAUNCH_BOUNDS.search(rest)) is not None:
        bounds_end = _closing_parenthesis(rest, found.end())
        parameters_end = _closing_parenthesis(rest, rest.index("(", bounds_end) + 1)
        body = rest.index("{", parameters_end) + 1
        check = f" emulation::check_launch_bounds({rest[found.end() : bounds_end - 1]});"
        parts += [rest[:body], check]
        rest = rest[body:]
    return "".join([*parts, rest])


def _closing_parenthesis(text: str, start: int) -> int:
    """Return the position behind the parenthesis that closes the one before `start`."""
    depth, position = 1, start
    while depth:
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        position += 1
    return position


def _compile(source: str, options: Sequence[str], kernels: Sequence[str], name: str, sanitize: bool) -> Path:
    flags = [*LANGUAGE_FLAGS, *(SANITIZED_FLAGS if sanitize else CHECKED_FLAGS), *options]
    entries = "".join(f'    emulation::Trampoline<(&{kernel})>::describe("{kernel}"),\n' for kernel in kernels)
    unit = (
        f'#line 1 "{name}"\n{_with_launch_bounds(source)}\n'
        f'#line 1 "kernels of {name}"\n'
        'extern "C" { [[gnu::visibility("default")]] extern const emulation::Kernel gpunet_kernels[]; }\n'
        f"const emulation::Kernel gpunet_kernels[] = {{\n{entries}}};\n"
    )
    stem = "".join(letter if letter.isalnum() else "_" for letter in name)
    target = cache_folder() / f"{stem}-{_key(_headers(), *flags, unit)}.so"
    if not target.exists():
        header = _precompiled_header(target.parent, tuple(flags[: len(flags) - len(options)]))
        _run_compiler([*flags, "-include", str(header), "-x", "c++", "-"], target, unit, name)
    return target


def _key(*content: str) -> str:
    return hashlib.sha256("\0".join([compiler_version(), *content]).encode()).hexdigest()[:20]


@functools.cache
def _precompiled_header(folder: Path, flags: Sequence[str]) -> Path:
    """Return a header that includes the emulation's, which g++ reads already parsed where macros allow it."""
    text = f'#include "{HEADER_FOLDER / "cuda_emulation.hpp"}"\n'
    header = folder / f"header-{_key(_headers(), *flags, text)}.hpp"
    parsed = header.with_suffix(".hpp.gch")
    if not parsed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run_compiler([*flags, "-x", "c++-header", str(write_text(header, text))], parsed, "", "cuda_emulation.hpp")
    return header


def _run_compiler(arguments: Sequence[str], target: Path, source: str, name: str) -> None:
    """Compile `source` into the file `target`, which is there whole or not at all."""
    # Parallel test processes may compile the same: each renames a finished file into place.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        output = Path(folder) / "output"
        command = [_compiler(), *arguments, "-o", str(output)]
        result = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        if result.returncode != 0:
            lines = "\n".join(result.stderr.splitlines()[:ERROR_LINES])
            raise EmulationCompileError(f"{name} does not compile:\n{lines}")
        if result.stderr:
            warnings.warn(f"{name}: {result.stderr}", stacklevel=5)
        output.replace(target)


def cache_folder() -> Path:
    """Folder of the compiled libraries; removing it is always safe."""
    chosen = os.environ.get("GPUNET_EMULATION_CACHE")
    return Path(chosen) if chosen else HEADER_FOLDER.parents[1] / "build" / "emulation"


@functools.cache
def _headers() -> str:
    return "".join(header.read_text(encoding="utf-8") for header in sorted(HEADER_FOLDER.glob("*.hpp")))


@functools.cache
def _compiler() -> str:
    """Return the path of g++; without one skip the test, or fail it where GPUNET_REQUIRE_COMPILER=1 promises one."""
    path = shutil.which("g++")
    if path is None:
        message = "the emulated device needs g++ (version 11 or later) to compile the kernels"
        if os.environ.get("GPUNET_REQUIRE_COMPILER") == "1":
            raise EmulationError(message)
        pytest.skip(message)
    return path


@functools.cache
def compiler_version() -> str:
    """First line of ``g++ --version``."""
    result = subprocess.run([_compiler(), "--version"], text=True, capture_output=True, check=True)
    return result.stdout.splitlines()[0]


def sanitizer_environment() -> dict[str, str]:
    """Environment variables a Python process needs from its start to use ``EmulatedDevice(sanitize=True)``.

    The address sanitizer must come before every other library. libstdc++ comes with it because the sanitizer
    looks up the C++ exception functions when it starts, and Python itself does not load them.
    """
    libraries = [
        subprocess.run(
            [_compiler(), f"-print-file-name={library}"], text=True, capture_output=True, check=True
        ).stdout.strip()
        for library in ("libasan.so", "libstdc++.so")
    ]
    return {"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}


def sanitizer_is_loaded() -> bool:
    """Whether this process was started with :func:`sanitizer_environment`."""
    if not sys.platform.startswith("linux"):
        return False
    return "libasan" in Path("/proc/self/maps").read_text(encoding="utf-8")

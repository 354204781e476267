"""Which kernels there are for which architectures, compiled, with what each of them needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from gpunet.activations import ACTIVATIONS, Activation, get_activation
from gpunet.backends.cuda.groups import groups_of
from gpunet.backends.cuda.instantiation import Variants
from gpunet.backends.cuda.sources import names as kernel_files
from gpunet.backends.cuda.sources import source_for
from gpunet.backends.devices.device import KernelCompileError
from gpunet.backends.devices.resources import CLUSTER_COMPUTE_CAPABILITY, LARGEST_CLUSTER
from gpunet.errors import InvalidValueError, unknown_name
from gpunet.kernel_check import memory_order, ptx
from gpunet.kernel_check.nvrtc import Nvrtc
from gpunet.kernel_check.resources import Resources, parse_log

# Turing, Ampere (data centre, consumer), Ada, Hopper, Blackwell (data centre, consumer): what later ones of each
# generation run too.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
# Between them, they need the registers of every budget of batch norm: GELU for double, softplus for the others.
DEMANDING_ACTIVATIONS = ("gelu", "softplus")


@dataclass(frozen=True)
class Unit:
    """Kernels that are compiled together, as :class:`gpunet.backends.cuda.kernel_library.KernelLibrary` does.

    Attributes
    ----------
    module : str
        The file, without ``.cu``.
    expressions : tuple of str
        C++ names.
    architecture : int
        90 for sm_90.
    """

    module: str
    expressions: tuple[str, ...]
    architecture: int


@dataclass(frozen=True)
class CheckedKernel:
    """One kernel for one architecture; ``order`` says what is wrong with the order of its memory accesses."""

    module: str
    expression: str
    architecture: int
    resources: Resources
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What came of a unit.

    Attributes
    ----------
    unit : Unit
    kernels : tuple of CheckedKernel
        None of them if it does not compile.
    error : str
        What the compiler said then, otherwise empty.
    seconds : float
    symbols : dict
        From the kernels' C++ names to those in the object file.
    cubin : bytes
        The object file.
    """

    unit: Unit
    kernels: tuple[CheckedKernel, ...]
    error: str
    seconds: float
    symbols: dict[str, str] = field(default_factory=dict)
    cubin: bytes = b""


def architectures(names: Sequence[str] | None = None) -> tuple[int, ...]:
    """Return the architectures of the names ``"90"`` or ``"sm_90"``; all of them by default.

    Raises
    ------
    InvalidValueError
        One is not checked; the message tells the nearest that is.
    """
    if names is None:
        return ARCHITECTURES
    chosen = []
    for name in names:
        digits = name.strip().removeprefix("sm_")
        number = int(digits) if digits.isdecimal() else 0
        if number not in ARCHITECTURES:
            near = min(ARCHITECTURES, key=lambda architecture: (abs(architecture - number), architecture))
            hint = f" Did you mean {near}?" if number else ""
            valid = ", ".join(map(str, ARCHITECTURES))
            raise InvalidValueError(f"--arch: {name!r} is not known.{hint} Expected some of: {valid}.")
        chosen.append(number)
    return tuple(sorted(set(chosen)))


def modules(names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the kernel files of these names; all of them by default.

    Raises
    ------
    InvalidValueError
        There is no such file; the message tells the nearest name.
    """
    files: tuple[str, ...] = kernel_files()
    for name in names or ():
        if name not in files:
            raise unknown_name("--module", name, files)
    return files if names is None else tuple(sorted(set(names)))


def units(
    modules_: Sequence[str], architectures_: Sequence[int], activations: Sequence[str] | None = None
) -> list[Unit]:
    """Return what the CUDA backend may compile of these files on these architectures.

    Parameters
    ----------
    activations : sequence of str, optional
        The activations of the kernels that have one. By default, all of them for ``activation.cu``, and ReLU and
        :data:`DEMANDING_ACTIVATIONS` for the others, which add loops, barriers and memory to the same functions.

    Raises
    ------
    InvalidValueError
        There is no such activation.
    """
    return [
        Unit(module, group, architecture)
        for architecture in architectures_
        for module in modules_
        for group in groups_of(module, Variants(_activations(module, activations), _largest_cluster(architecture)))
    ]


def _activations(module: str, chosen: Sequence[str] | None) -> tuple[Activation, ...]:
    if chosen is None:
        chosen = tuple(ACTIVATIONS) if module == "activation" else ("relu", *DEMANDING_ACTIVATIONS)
    return tuple(get_activation(name, "--activation") for name in chosen)


def _largest_cluster(architecture: int) -> int:
    return LARGEST_CLUSTER if divmod(architecture, 10) >= CLUSTER_COMPUTE_CAPABILITY else 1


def compile_unit(nvrtc: Nvrtc, unit: Unit, exchanged: Mapping[str, Collection[str]]) -> Result:
    """Compile a unit, read what its kernels need, and follow what their threads tell one another.

    Parameters
    ----------
    exchanged : mapping
        From names of kernels to those of their parameters through which blocks tell each other something.

    Raises
    ------
    InvalidValueError
        A kernel has no parameter of such a name.
    """
    start = time.perf_counter()
    try:
        text = source_for(unit.module, unit.expressions)
        compiled = nvrtc.compile(text, unit.expressions, unit.architecture, f"{unit.module}.cu")
        resources = parse_log(compiled.log)
        silent = [name for name, symbol in compiled.symbols.items() if symbol not in resources]
        if silent:
            raise KernelCompileError(f"the assembler tells nothing about {silent[0]}")
    except KernelCompileError as error:
        return Result(unit, (), str(error), time.perf_counter() - start)
    functions = ptx.functions(compiled.ptx)
    checked = []
    for name, symbol in compiled.symbols.items():
        kernel = name.partition("<")[0]
        parameters = memory_order.parameter_names(text, kernel)
        order = memory_order.problems(functions[symbol], parameters, exchanged.get(kernel, ()))
        checked.append(CheckedKernel(unit.module, name, unit.architecture, resources[symbol], tuple(order)))
    return Result(unit, tuple(checked), "", time.perf_counter() - start, compiled.symbols, compiled.cubin)


def compile_all(
    nvrtc: Nvrtc,
    units_: Sequence[Unit],
    exchanged: Mapping[str, Mapping[str, Collection[str]]],
    workers: int,
    on_done: Callable[[], object],
) -> list[Result]:
    """Compile units on several threads; the results are in the order of the units.

    Parameters
    ----------
    exchanged : mapping
        By module, what :func:`compile_unit` takes.
    on_done : callable
        Called after each unit.
    """
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(compile_unit, nvrtc, unit, exchanged.get(unit.module, {})) for unit in units_]
        try:
            for future in as_completed(futures):
                future.result()
                on_done()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]

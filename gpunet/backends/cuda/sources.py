"""The CUDA C++ sources, each one as a single self-contained string.

They lie in ``kernels/``, which an installation has as the package ``gpunet.kernels``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from gpunet.activations import ACTIVATIONS, Activation, get_activation

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)".*$', re.MULTILINE)
_PRAGMA_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once.*$", re.MULTILINE)


@functools.cache
def folder() -> Traversable:
    """Return the folder of the sources: that of an installation, or of the checkout this file lies in."""
    try:
        return files("gpunet.kernels")
    except ModuleNotFoundError:
        return Path(__file__).parents[3] / "kernels"


def names() -> tuple[str, ...]:
    """Return the names of the kernel files, without ``.cu``, in alphabetical order."""
    return tuple(sorted(entry.name[:-3] for entry in folder().iterdir() if entry.name.endswith(".cu")))


@functools.cache
def source(name: str) -> str:
    """Return the CUDA C++ of ``name.cu`` with every ``#include "header.cuh"`` replaced by that header, once.

    CuPy's compile cache is keyed by the source text and not by what it includes: with the headers inside the text, a
    change in one is seen. Includes in angle brackets stay for the compiler. ``#line`` directives keep the file names
    and line numbers of compiler messages right.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Raises
    ------
    FileNotFoundError
        There is no such kernel, or it includes a header that is not installed.
    """
    return _inline(f"{name}.cu", set())


def source_with(name: str, activation: Activation | None) -> str:
    """Return the CUDA C++ of ``name.cu``, and behind it the activation that its kernels are instantiated with."""
    return source(name) + ("" if activation is None else activation.cuda_source())


def source_for(name: str, kernels: Iterable[str]) -> str:
    """Return the CUDA C++ of ``name.cu``, and behind it those of gpunet's activations that kernels are named after.

    Parameters
    ----------
    kernels : iterable of str
        C++ names with template arguments.
    """
    own = map(get_activation, ACTIVATIONS)
    arguments = "".join(kernels)
    return source(name) + "".join(one.cuda_source() for one in own if f", {one.cuda_name}" in arguments)


def _inline(file_name: str, seen: set[str]) -> str:
    seen.add(file_name)
    text = folder().joinpath(file_name).read_text(encoding="utf-8")

    def replacement(match: re.Match[str]) -> str:
        header = match[1]
        following = text.count("\n", 0, match.start()) + 2
        # Header guards stay behind: the text below appears once.
        inlined = "" if header in seen else _inline(header, seen)
        return f'{inlined}\n#line {following} "{file_name}"'

    return f'#line 1 "{file_name}"\n' + _INCLUDE.sub(replacement, _PRAGMA_ONCE.sub("", text))

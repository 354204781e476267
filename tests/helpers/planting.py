"""Known bugs in Python, planted for a moment by an exact replacement of a module's text."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest


def one_fast(bugs: Iterable[Any], family: Callable[[Any], object] = lambda bug: None) -> list[Any]:
    """Return bugs as parameters of a test; all but the first of each family are slow.

    One of them shows in every ``make test`` that the tests bite; all do in ``make test-slow``.
    """
    parameters, families = [], set[object]()
    for bug in bugs:
        parameters.append(pytest.param(bug, marks=[pytest.mark.slow] if family(bug) in families else []))
        families.add(family(bug))
    return parameters


@contextmanager
def planted(module: ModuleType, old: str, new: str) -> Iterator[None]:
    """Let the functions, methods and constants of ``module`` be those of its text with one replacement.

    The functions stay the same objects, with other code: whoever has imported them runs the bug. ``old`` must occur
    once: an edit of the module cannot leave a bug that is planted nowhere.
    """
    assert module.__file__ is not None
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{module.__name__} has {text.count(old)} times: {old}"
    spec = importlib.util.spec_from_loader(module.__name__, loader=None)
    assert spec is not None
    copy = importlib.util.module_from_spec(spec)
    exec(compile(text.replace(old, new), module.__name__, "exec"), vars(copy))
    with pytest.MonkeyPatch.context() as patch:
        caches = _exchange(patch, module, copy)
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()


def _exchange(patch: pytest.MonkeyPatch, original: Any, copy: Any) -> list[Any]:
    """Give what ``original`` defines the code and values of ``copy``; return its functions that keep results."""
    caches = []
    for name, new in list(vars(copy).items()):
        old = vars(original).get(name)
        if isinstance(new, (int, float)) and new != old:
            patch.setattr(original, name, new)
        elif isinstance(new, type) and isinstance(old, type) and new is not old:
            caches += _exchange(patch, old, new)
        elif hasattr(new, "cache_clear") and new is not old:
            caches.append(old)
            patch.setattr(old.__wrapped__, "__code__", new.__wrapped__.__code__)
        elif isinstance(new, FunctionType) and isinstance(old, FunctionType) and new is not old:
            patch.setattr(old, "__code__", new.__code__)
    return caches

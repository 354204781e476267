"""Lets the tests run in a bare checkout, where nothing is installed: ``kernels/`` becomes :mod:`gpunet.kernels`.

An installed package, also an editable one, has it already; a GPU machine without a network may have neither.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def map_kernels() -> None:
    """Make ``import gpunet.kernels`` find ``kernels/`` unless it is installed."""
    sys.path.insert(0, str(ROOT))
    import gpunet

    if importlib.util.find_spec("gpunet.kernels") is not None:
        return
    folder = ROOT / "kernels"
    spec = importlib.util.spec_from_file_location(
        "gpunet.kernels", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not a package")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpunet.kernels"] = module
    spec.loader.exec_module(module)
    gpunet.kernels = module  # type: ignore[attr-defined]

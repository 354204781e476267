"""Where compiled kernels are kept."""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import pytest

from gpunet.backends.cpu.kernels.training import count_kernel


def test_kernels_of_other_constants_have_lists_of_their_own_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that add to one list at once may mix up the code that it names."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for dtype in (np.float32, np.float64):
        for stamp in ("this version", "the next"):
            count_kernel(dtype, stamp)
    lists, codes = (sorted(path.name for path in tmp_path.rglob(f"*.{end}")) for end in ("nbi", "nbc"))
    assert len(lists) == 2
    assert len(codes) == 4
    assert all(code.startswith((lists[0][:-4], lists[1][:-4])) for code in codes)

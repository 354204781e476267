"""Which library multiplies matrices for the compiled kernels."""

from __future__ import annotations

import pytest

from gpunet.backends.cpu import blas


def test_mkl_is_taken_where_it_is_installed_unless_it_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = blas.Blas("mkl", "2026.0", 1, 2, False, 3, 0, 0)
    monkeypatch.setattr(blas, "_mkl", lambda: installed)
    monkeypatch.setattr(blas, "_openblas", lambda: None)
    find = blas.find_blas.__wrapped__  # what it found before stays in the process
    monkeypatch.delenv("GPUNET_MKL", raising=False)
    assert find() is installed
    monkeypatch.setenv("GPUNET_MKL", "0")
    assert find() is None

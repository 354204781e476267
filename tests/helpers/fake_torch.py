"""The part of PyTorch that gpunet meets: tensors in CUDA memory, written late by a stream of PyTorch's own."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.helpers import fake_cupy


class Tensor:
    """A tensor in the memory of the stand-in for CuPy's GPU, of the pool of PyTorch's stream.

    Attributes
    ----------
    asked : list of int
        The streams that DLPack was to let wait.
    """

    requires_grad = False

    def __init__(self, library: FakeTorch, array: fake_cupy.ndarray) -> None:
        self.library = library
        self.array = array
        self.asked: list[int] = []
        self.device = SimpleNamespace(type="cuda", index=array.device.id)

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: getattr(self.library, self.array.dtype.name))

    @property
    def __cuda_array_interface__(self) -> Any:
        """As PyTorch has it: version 2, which names no stream."""
        if self.requires_grad:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")
        return self.array.values.__array_interface__ | {"version": 2}

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.array.device.id

    def __dlpack__(self, *, stream: int = -1, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        self.asked.append(stream)
        assert stream not in (0, 2)
        if stream != -1:  # otherwise nobody waits
            fake_cupy.Stream.by_address[0 if stream == 1 else stream].wait_event(self.library.stream.record())
        return self.array

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def numpy(self) -> Any:
        """What is in the memory once PyTorch's stream has got here."""
        with self.library.stream:
            return self.array.get()


class FakeTorch(SimpleNamespace):
    """Stands for the module ``torch``; every tensor of it counts on ``stream`` alone."""

    Tensor = Tensor
    float32, float64, int64 = map(np.dtype, ("float32", "float64", "int64"))

    def __init__(self, cupy: fake_cupy.FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cupy = cupy
        self.stream = fake_cupy.Stream(non_blocking=True)
        monkeypatch.setitem(sys.modules, "torch", self)

    def empty(self, shape: Any, dtype: Any, device: Any) -> Tensor:
        with fake_cupy.Device(device.index), self.stream:
            return Tensor(self, self.cupy.empty(shape, dtype))

    def late(self, values: Any, device: int = 0) -> Tensor:
        """Return a tensor whose values PyTorch's stream has still to write."""
        values = np.array(values)
        tensor = self.empty(values.shape, values.dtype, SimpleNamespace(index=device))
        target = tensor.array.values
        self.stream.submit(lambda: np.copyto(target, values))
        return tensor

"""Flat buffers with named views: one contiguous vector holds every parameter, so one operation updates them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.backends.half import padded
from gpunet.errors import InvalidTypeError
from gpunet.layers.base import ParameterSpec

Array = npt.NDArray[Any]

# Every view starts at a multiple of this many elements (128 bytes of float32), so that a device can read any of them
# 16 bytes at a time. The elements in between are 0 and stay 0: their gradient is.
ALIGNMENT = 32


class Views(dict[str, Array]):
    """Arrays by name that stay: another one in the place of a view would be no part of the vector.

    A copy is an ordinary dictionary.

    Raises
    ------
    InvalidTypeError
        One is to be exchanged, added or taken away.
    """

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidTypeError(
            "an array of a network or an optimizer cannot be exchanged. Expected numbers written into it "
            "(array[...] = numbers), or network.set_parameters."
        )

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Array]]]:
        return dict, (dict(self),)


class Layout:
    """Where each parameter lies in the flat vector: the weights first, then the rest.

    Attributes
    ----------
    slices : dict of str to slice
        In the order of ``specs``.
    size : int
        Elements of the vector, padding included.
    weight_count : int
        L2 applies to the elements below this.
    """

    def __init__(self, specs: Sequence[ParameterSpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        starts: dict[str, int] = {}
        self.size = 0
        for wanted in (True, False):
            for spec in specs:
                if spec.is_weight is wanted:
                    starts[spec.name] = self.size
                    self.size += -(-spec.size // ALIGNMENT) * ALIGNMENT
            if wanted:
                self.weight_count = self.size
        self.slices = {spec.name: slice(starts[spec.name], starts[spec.name] + spec.size) for spec in specs}

    def views(self, flat: Array, multiple: int = 1) -> Views:
        """Return the named views of a flat vector; those of vectors up to a multiple of so many elements."""
        return Views({name: self._view(flat, name, multiple) for name in self.specs})

    def _view(self, flat: Array, name: str, multiple: int) -> Array:
        shape, start = self.specs[name].shape, self.slices[name].start
        if len(shape) == 1:
            return flat[start : start + padded(shape[0], multiple)]
        return flat[self.slices[name]].reshape(shape)

    def new_vector(self, backend: Backend, dtype: npt.DTypeLike) -> Array:
        """Return a vector of zeros on the backend's device."""
        return backend.zeros(self.size, dtype)

    @property
    def count(self) -> int:
        """Number of parameters, padding not counted."""
        return sum(spec.size for spec in self.specs.values())


def flat_values(layout: Layout, values: dict[str, Array], dtype: npt.DTypeLike) -> Array:
    """Return a host vector that holds ``values`` where ``layout`` puts them, and 0 in between.

    Raises
    ------
    ValueError
        A value has another shape than its parameter.
    """
    flat = np.zeros(layout.size, dtype)
    for name, view in layout.views(flat).items():
        if values[name].shape != view.shape:
            raise ValueError(f"{name} has shape {values[name].shape}, expected {view.shape}")
        view[...] = values[name]
    return flat

"""What every layer is: parameters with names, buffers of its own, forward and backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.backends.half import padded, widen
from gpunet.errors import OutOfDeviceMemoryError

Array = npt.NDArray[Any]

# Of each buffer: training has at most two sizes of batch, its validation two more. A view costs more than its lookup.
_VIEWS_KEPT = 8


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a layer before it has memory.

    Attributes
    ----------
    name : str
        ``W1``, ``gamma1``, ``beta1``, ``b1``, ...; the number is the linear layer's, from 1.
    shape : tuple of int
    initial : float
        Every element starts here; the W_i are drawn by the network's initialiser instead.
    is_weight : bool
        Whether the initialiser, L2 and weight decay apply: true for the W_i alone.
    """

    name: str
    shape: tuple[int, ...]
    initial: float = 0.0
    is_weight: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))


class Workspace:
    """Buffers that are allocated once, for the largest batch seen, and reused by every step after.

    Parameters
    ----------
    backend : Backend
    is_zeroed : bool
        Whether a new buffer holds zeros. Otherwise its contents are undefined.

    Attributes
    ----------
    generation : int
        Counts reallocations. A recorded step holds the addresses of one generation.
    """

    def __init__(self, backend: Backend, is_zeroed: bool = False) -> None:
        self.backend = backend
        self.generation = 0
        self._new = backend.zeros if is_zeroed else backend.empty
        self._buffers: dict[tuple[str, np.dtype[Any]], Array] = {}
        self._views: dict[tuple[str, np.dtype[Any]], dict[tuple[int, int], Array]] = {}

    def rows(self, name: str, rows: int, columns: int, dtype: npt.DTypeLike) -> Array:
        """Return the buffer ``name`` as a contiguous (rows, columns) array, with what is left in it."""
        dtype = np.dtype(dtype)
        views = self._views.setdefault((name, dtype), {})
        view = views.get((rows, columns))
        if view is None:
            view = self._new_view(name, rows, columns, dtype)
            if len(views) >= _VIEWS_KEPT:
                views.clear()
            views[rows, columns] = view
        return view

    def _new_view(self, name: str, rows: int, columns: int, dtype: np.dtype[Any]) -> Array:
        size = rows * columns
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.size < size:
            try:
                buffer = self._buffers[name, dtype] = self._new(size, dtype)
            except OutOfDeviceMemoryError as error:
                raise OutOfDeviceMemoryError(f"a batch of {rows:,} rows does not fit ({name}): {error}") from None
            self._views[name, dtype].clear()
            self.generation += 1
        return buffer[:size].reshape(rows, columns)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(int(buffer.nbytes) for buffer in self._buffers.values())


@dataclass(frozen=True)
class Memory:
    """Where the parts of a network compute, and what they share.

    Attributes
    ----------
    backend : Backend
    workspace : Workspace
    dtype : dtype
        Of parameters, statistics and losses.
    storage : dtype
        Of the matrices between layers: ``dtype``, or half precision.
    multiple : int
        Rows of these matrices are as long as the next multiple of so many elements. What exceeds the layer's columns
        is padding, which no layer's results depend on.
    weights : mapping of str to array
        The W_i as products read them: the parameters themselves, or rounded and padded copies.
    parameters, gradients, state : mapping of str to array
        Named views of the network's flat buffers; vectors are as long as the rows of matrices.
    step : array of int64, (1,)
        The number of training steps done, on the device.
    loss_scale : array of float32, or None
        Its first element is what gradients of half precision are multiplied with.
    """

    backend: Backend
    workspace: Workspace
    dtype: np.dtype[Any]
    storage: np.dtype[Any]
    multiple: int
    weights: Mapping[str, Array]
    parameters: Mapping[str, Array]
    gradients: Mapping[str, Array]
    state: Mapping[str, Array]
    step: Array
    loss_scale: Array | None = None


class Part:
    """A layer or a loss: what computes on the backend, and in the memory, of the network it is bound to."""

    def bind(self, memory: Memory) -> None:
        """Take a place in a network."""
        self.backend = memory.backend
        self.workspace = memory.workspace
        self.dtype = memory.dtype
        self.storage = memory.storage
        self.parameters = memory.parameters
        self.gradients = memory.gradients
        self.state = memory.state
        self.step = memory.step


def fixed(name: str) -> property:
    """Return an attribute that can be read and not set; the constructor sets its name with an underscore before it.

    For what decides shapes and what is computed: a network has its parameters and its file's header for just that.
    """
    return property(attrgetter(f"_{name}"))


class Layer(Part, ABC):
    """A step of the network with its gradient written beside it.

    A layer's outputs live in buffers of its workspace: they are valid until the layer runs again, so copy what must
    outlive that. ``backward`` uses what the last ``forward(training=True)`` left behind.

    Parameters
    ----------
    index : int
        Number of the linear layer it belongs to, from 1.
    columns : int
        Width of the output.

    Attributes
    ----------
    name : str
        Kind and index, as error messages name it: ``"batch_norm2"``.
    width : int
        Elements of a row of its matrices in memory: ``columns``, or more with half precision.
    output : ndarray, (n, width)
        What the last forward returned; the network keeps it for diagnosis. After one in inference mode, later layers
        may have overwritten it.
    """

    kind = "layer"
    not_recorded = frozenset({"output"})
    index, columns, name, width = fixed("index"), fixed("columns"), fixed("name"), fixed("width")
    output: Array
    # One of the two that hidden layers take turns in when nothing is kept for a backward, so that what one layer writes
    # and the next one reads stays in a cache: that of the widest of them, which training has too. None: its own.
    inference_buffer: str | None = None

    def __init__(self, index: int, columns: int) -> None:
        self._index = index
        self._columns = columns
        self._name = f"{self.kind}{index}"

    def parameter_specs(self) -> list[ParameterSpec]:
        """Return the parameters that the layer learns."""
        return []

    def state_specs(self) -> list[ParameterSpec]:
        """Return the arrays that the layer updates by itself: running averages."""
        return []

    def bind(self, memory: Memory) -> None:
        super().bind(memory)
        self._width = padded(self.columns, memory.multiple)

    def buffer(self, role: str, rows: int, training: bool = True) -> Array:
        """Return the (rows, width) buffer for ``role``: the layer's own, or in inference mode one that layers share."""
        shared = None if training else self.inference_buffer
        return self.workspace.rows(shared or f"{self.name}.{role}", rows, self.width, self.storage)

    def numbers(self, matrix: Array) -> Array:
        """Return what a matrix of the layer stands for, (n, columns), on the host, in the network's dtype."""
        return widen(np, self.backend.to_numpy(matrix))[:, : self.columns]

    @abstractmethod
    def forward(self, x: Array, training: bool) -> Array:
        """Return the layer's output for a batch.

        Parameters
        ----------
        x : ndarray, (n, columns of the layer below)
        training : bool
            Whether batch statistics and dropout masks apply, and a ``backward`` may follow.
        """

    @abstractmethod
    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """Write the parameters' gradients and return the gradient with respect to the layer's input.

        Parameters
        ----------
        dy : ndarray, (n, columns)
            Gradient of J with respect to the output; may be overwritten.
        input_gradient : bool
            False where nobody needs the return value, which is then None.
        """

"""An ONNX graph in the making."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


class Graph:
    """Nodes and numbers of a model; an :class:`gpunet.activations.OnnxGraph`.

    Parameters
    ----------
    dtype : dtype
        Of the network's numbers.
    helper : module
        ``onnx.helper``.
    """

    def __init__(self, dtype: np.dtype[Any], helper: Any) -> None:
        self.nodes: list[Any] = []
        self.stored: dict[str, Any] = {}
        self.dtype = dtype
        self.type_number: Callable[[npt.DTypeLike], int] = lambda kind: helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self._make_node = helper.make_node

    def add(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}" if output is None else output
        self.nodes.append(self._make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def cast(self, x: str, dtype: npt.DTypeLike, output: str | None = None) -> str:
        """Add a conversion."""
        return self.add("Cast", [x], output, to=self.type_number(dtype))

    def keep(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """Store an array, by default with the network's dtype, and return its name."""
        self.stored[name] = np.ascontiguousarray(value, self.dtype if dtype is None else dtype)
        return name

    def constant(self, value: float) -> str:
        """Store a number of the network's dtype, once, and return its name."""
        name = f"number_{value!r}"
        if name not in self.stored:
            self.stored[name] = np.array(value, self.dtype)
        return name

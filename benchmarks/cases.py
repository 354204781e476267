"""What is measured: a case names one piece of work, the same for every provider."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

NETWORK = "network"
NETWORK_MODES = ("forward", "forward_backward", "step", "epoch")
CLASSES = 10


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes
    ----------
    operation : str
        ``"network"``, or one of the backend's operations: ``"gemm"``, ``"bias_activation"``,
        ``"batch_norm_activation"``, ``"softmax_cross_entropy"``, ``"sgd_step"``, ``"adam_step"``.
    mode : str
        Of a network: ``"forward"`` (inference), ``"forward_backward"`` (training mode, the gradients of all
        parameters), ``"step"`` (that and the optimiser, on batches that are on the device), ``"epoch"`` (from host
        data). Of an operation: ``"forward"`` or ``"backward"``.
    label : str
        What tables call it: ``"a"``, ``"batch 1024"``, ``"8192 x 512"``.
    rows : int
        n, the batch.
    sizes : tuple of int
        Layer sizes d, m_1, ..., m_k of a network; the columns m of an operation; of ``gemm`` the inner and the outer
        dimension (a, m): (n, a) times (m, a) transposed; of an optimiser's step the number of parameters.
    activation, batch_norm, optimizer
        Of a network, those that the operation has.
    dtype : str
    precision : str
        Of float32 matrix products: ``"float32"`` or ``"tf32"``.
    examples : int
        Rows of the data set, for ``"epoch"``.
    """

    operation: str
    mode: str
    label: str
    rows: int
    sizes: tuple[int, ...]
    activation: str = "relu"
    batch_norm: bool = True
    optimizer: str = "adam"
    dtype: str = "float32"
    precision: str = "float32"
    examples: int = 0

    @property
    def key(self) -> str:
        """The case in one line, the same in every run; unique."""
        shape = "x".join(map(str, (self.rows, *self.sizes)))
        parts = [self.operation, self.mode, self.label.replace(" ", "-"), shape, self.activation]
        if self.operation == NETWORK:
            parts += ["batch-norm" if self.batch_norm else "plain", self.optimizer]
        parts += [self.dtype, self.precision]
        return "/".join(parts)

    @property
    def samples(self) -> int:
        """Examples that one unit of work processes."""
        return self.examples if self.mode == "epoch" else self.rows

    def replace(self, **changes: Any) -> Case:
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can carry to another process."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Case:
        """Undo :meth:`as_dict`."""
        return cls(**{**values, "sizes": tuple(values["sizes"])})

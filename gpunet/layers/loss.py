"""What every loss is: the last step of the network, giving J and the gradient that the backward pass starts from."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from gpunet.backends.reference.training import Tally
from gpunet.layers.base import Array, Memory, Part


class Loss(Part, ABC):
    """J = sum_i w_i l_i / sum_i w_i over the rows of a batch, and its gradient.

    What the outputs stand for is told by :meth:`predict` and :meth:`probabilities`. They are array expressions for
    either place: on the host, or on the device within :meth:`gpunet.backends.Backend.array_module`.

    Attributes
    ----------
    name : str
        What :class:`gpunet.Network` calls it.
    most_numbers : float
        How many numbers it is made with at most.
    numbers : tuple of float
        Those it was made with; what they are is decided for good when a network is made.
    is_classifier : bool
        Whether every row belongs to one class: targets are labels, int32 of shape (n,); otherwise they are numbers of
        shape (n, c).
    has_probabilities : bool
        Whether the outputs stand for probabilities: there are labels to predict, and an accuracy.
    value : ndarray, (2,)
        J and the sum of the weights, of the last batch, on the device.
    """

    name: str
    most_numbers: ClassVar[float] = 0
    is_classifier: bool = False
    has_probabilities: bool = False

    @property
    def numbers(self) -> tuple[float, ...]:
        return ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.numbers))})" if self.numbers else self.name

    def __repr__(self) -> str:
        return f"<loss {self}>"

    def unbound(self) -> Loss:
        """Return one like it, for another network."""
        return type(self)(*self.numbers)

    @property
    def shares_targets(self) -> bool:
        """Whether all outputs may be given one target per row."""
        return False

    def check_outputs(self, outputs: int) -> None:
        """Raise InvalidValueError where a network cannot have so many outputs."""

    def bind(self, memory: Memory) -> None:
        super().bind(memory)
        self.value = memory.backend.zeros(2, memory.dtype)

    def __call__(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        bias: Array | None = None,
        dbias: Array | None = None,
        tally: Tally | None = None,
        class_weights: Array | None = None,
    ) -> Array:
        """Write J into ``value`` and return dJ/doutputs, (n, c), in a buffer that the next call overwrites.

        Parameters
        ----------
        outputs : ndarray, (n, c)
        targets : ndarray
            Labels or numbers; see ``is_classifier``.
        weights : ndarray, (n,), or None
        bias, dbias : ndarray, (c,), or None
            b, which is first added to ``outputs``, in place; and where its gradient is written.
        tally : Tally or None
            Where a training step is counted, if this is one.
        class_weights : ndarray, (c,), or None
            For targets that spread a row over the classes: how much each of these counts. ``weights`` has that of the
            row's label.
        """
        doutputs = self.workspace.rows("loss.doutputs", outputs.shape[0], outputs.shape[1], self.dtype)
        places = {"bias": bias, "dbias": dbias, "tally": tally}
        self.evaluate(outputs, targets, weights, doutputs, class_weights, places)
        return doutputs

    def evaluate(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        class_weights: Array | None,
        places: dict[str, Any],
    ) -> None:
        """Do the operation of the backend that has the loss's name."""
        operation = getattr(self.backend, type(self).name)
        operation(outputs, targets, weights, doutputs, self.value, *self._arguments(), **places)

    def _arguments(self) -> tuple[Any, ...]:
        """Return what the operation takes besides what all losses do."""
        return ()

    @staticmethod
    def predict(outputs: Array) -> Array:
        """Return what a user takes for the prediction: labels of type int64, or the outputs, (n,) where c is 1.

        Parameters
        ----------
        outputs : array, (n, c)
        """
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    @staticmethod
    def probabilities(outputs: Array) -> Array:
        """Return the probabilities that outputs, (n, c), stand for; may overwrite them."""
        raise NotImplementedError("only where has_probabilities is true")

    def score(self, outputs: Array, targets: Array, weights: Array | None, out: Array) -> None:
        """Write how many labels :meth:`predict` gets right, weighted.

        Parameters
        ----------
        outputs, targets, weights
            As in ``__call__``.
        out : ndarray of float64, (1,)
        """
        raise NotImplementedError("only where has_probabilities is true")

"""What every loss is: the last step of the network, giving J and the gradient that the backward pass starts from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

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
    is_classifier : bool
        Whether every row belongs to one class: targets are labels, int32 of shape (n,); otherwise they are numbers of
        shape (n, c).
    has_probabilities : bool
        Whether the outputs stand for probabilities: there are labels to predict, and an accuracy.
    value : ndarray, (2,)
        J and the sum of the weights, of the last batch, on the device.
    """

    name: ClassVar[str]
    is_classifier: ClassVar[bool] = False
    has_probabilities: ClassVar[bool] = False

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
        """
        doutputs = self.workspace.rows("loss.doutputs", outputs.shape[0], outputs.shape[1], self.dtype)
        self._evaluate(outputs, targets, weights, doutputs, bias, dbias, tally)
        return doutputs

    @abstractmethod
    def _evaluate(
        self,
        outputs: Array,
        targets: Array,
        weights: Array | None,
        doutputs: Array,
        bias: Array | None,
        dbias: Array | None,
        tally: Tally | None,
    ) -> None: ...

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
            As in :meth:`__call__`.
        out : ndarray of float64, (1,)
        """
        raise NotImplementedError("only where has_probabilities is true")

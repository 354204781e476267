"""What the pass of a narrow network in one launch needs to know about its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gpunet.activations import Activation


class NarrowLayer(NamedTuple):
    """Sizes of a linear layer, and where its vectors start in the flat parameters and in the flat state.

    ``weights`` is W (outputs, inputs); ``shift`` is beta, or the bias of a layer without batch norm, whose ``scale``
    (gamma), ``running_mean`` and ``running_variance`` are -1. As in ``kernels/narrow_pass.cu``.
    """

    inputs: int
    outputs: int
    weights: int
    scale: int
    shift: int
    running_mean: int
    running_variance: int


@dataclass(frozen=True)
class NarrowStack:
    """A network of one kind of hidden layers, with softmax cross-entropy behind the last layer and its bias.

    Attributes
    ----------
    layers : tuple of NarrowLayer
        The last has a bias alone.
    batch_norm : bool
        Whether the hidden layers have batch norm with scale and shift; otherwise they have a bias.
    activation : Activation
        Of the hidden layers.
    momentum, epsilon : float
        Of batch norm.
    """

    layers: tuple[NarrowLayer, ...]
    batch_norm: bool
    activation: Activation
    momentum: float
    epsilon: float

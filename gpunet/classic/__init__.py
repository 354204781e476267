"""Learning rules that stand on their own: from the perceptron to layer-wise pre-training (lecture rows L9 to L13)."""

from gpunet.classic.adaline import Adaline
from gpunet.classic.autoencoder import Autoencoder
from gpunet.classic.delta_rule import DeltaRule
from gpunet.classic.madaline import Madaline
from gpunet.classic.perceptron import Perceptron, perceptron_loss
from gpunet.classic.pretrained_classifier import PretrainedClassifier
from gpunet.classic.pretraining import encoder_network, pretrain_stack, unroll
from gpunet.classic.restricted_boltzmann import RestrictedBoltzmannMachine
from gpunet.classic.separability import Separation, separation

__all__ = [
    "Adaline",
    "Autoencoder",
    "DeltaRule",
    "Madaline",
    "Perceptron",
    "PretrainedClassifier",
    "RestrictedBoltzmannMachine",
    "Separation",
    "encoder_network",
    "perceptron_loss",
    "pretrain_stack",
    "separation",
    "unroll",
]

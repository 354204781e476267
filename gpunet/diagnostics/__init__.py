"""What goes on inside a network: activations, gradients, saturated and dead units, updates (lecture rows L14-L21).

>>> import numpy as np
>>> import gpunet
>>> X, y = np.random.default_rng(0).standard_normal((200, 30)), np.arange(200) % 3
>>> network = gpunet.Network(
...     [30, 40, 40, 3], initializer="normal(3)", activation="tanh", batch_norm=False, device="cpu"
... )
>>> for finding in inspect(network, X, y).findings():
...     print(finding)
layer 1: 88 % of the activations are saturated
layer 2: 89 % of the activations are saturated
"""

from gpunet.diagnostics.callback import DiagnosticsCallback
from gpunet.diagnostics.diagnosis import Diagnosis
from gpunet.diagnostics.distribution import Distribution
from gpunet.diagnostics.figures import draw_histogram, draw_layers, draw_training
from gpunet.diagnostics.findings import Finding, Thresholds
from gpunet.diagnostics.gradient_check import check_gradients
from gpunet.diagnostics.inspection import inspect, spread_rows, update_ratios
from gpunet.diagnostics.records import LayerDiagnosis, ParameterDiagnosis

__all__ = [
    "Diagnosis",
    "DiagnosticsCallback",
    "Distribution",
    "Finding",
    "LayerDiagnosis",
    "ParameterDiagnosis",
    "Thresholds",
    "check_gradients",
    "draw_histogram",
    "draw_layers",
    "draw_training",
    "inspect",
    "spread_rows",
    "update_ratios",
]

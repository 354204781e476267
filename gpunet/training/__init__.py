"""Training: the loop, its step, history, early stopping, checkpoints, evaluation."""

from gpunet.training.callbacks import Callback, Run
from gpunet.training.early_stopping import EarlyStopping
from gpunet.training.evaluation import Evaluation, evaluate
from gpunet.training.fitting import fit
from gpunet.training.history import EpochRecord, History
from gpunet.training.loss_curve import LossCurve
from gpunet.training.progress_bar import ProgressBar
from gpunet.training.weight_average import WeightAverage

__all__ = [
    "Callback",
    "EarlyStopping",
    "EpochRecord",
    "Evaluation",
    "History",
    "LossCurve",
    "ProgressBar",
    "Run",
    "WeightAverage",
    "evaluate",
    "fit",
]

"""k-layer fully connected networks with hand-written gradients, on NumPy and on CuPy.

>>> import gpunet
>>> network = gpunet.Network([64, 128, 128, 10], seed=0)
>>> history = gpunet.fit(network, X, y, epochs=20)                      # doctest: +SKIP
"""

# First of all, because python -m gpunet and the installed command import this file before anything of their own.
from gpunet.signals import end_quietly_while_importing

end_quietly_while_importing()

# ruff: noqa: E402
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpunet.activations import (
    ELU,
    GELU,
    SELU,
    Activation,
    GELUTanh,
    HardSigmoid,
    HardSwish,
    HardTanh,
    Identity,
    LeakyReLU,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from gpunet.errors import (
    ConvergenceWarning,
    DeviceError,
    DistributedError,
    FileFormatError,
    GpunetError,
    InUseError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    MissingFileError,
    NoKernelWarning,
    NonFiniteError,
    NotFittedError,
    OutOfDeviceMemoryError,
    ResumeWarning,
    ShapeError,
    TrainingDivergedError,
    UnknownCategoryWarning,
)
from gpunet.layers import CustomLoss, Huber, Quantile, SoftmaxCrossEntropy
from gpunet.network import Network
from gpunet.network_file import load
from gpunet.optimizers import SGD, Adam, AdamW, Optimizer
from gpunet.schedules import (
    ConstantRate,
    CosineRate,
    CyclicalRate,
    OneCycleRate,
    ReduceOnPlateauRate,
    Schedule,
    StepRate,
    WarmUpRate,
)
from gpunet.training import (
    Callback,
    EarlyStopping,
    EpochRecord,
    Evaluation,
    History,
    LossCurve,
    ProgressBar,
    Run,
    WeightAverage,
    evaluate,
    fit,
)
from gpunet.version import __version__

if TYPE_CHECKING:
    from gpunet import classic, data, data_initializers, diagnostics, estimators, lecture
    from gpunet.estimators import MLPClassifier, MLPRegressor
    from gpunet.interchange import (
        export_onnx,
        export_safetensors,
        export_torch,
        from_sklearn,
        from_torch,
        load_state_dict,
        to_sklearn,
        to_torch,
    )

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Callback",
    "ConstantRate",
    "ConvergenceWarning",
    "CosineRate",
    "CustomLoss",
    "CyclicalRate",
    "DeviceError",
    "DistributedError",
    "EarlyStopping",
    "EpochRecord",
    "Evaluation",
    "FileFormatError",
    "GELUTanh",
    "GpunetError",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "History",
    "Huber",
    "Identity",
    "InUseError",
    "InvalidTypeError",
    "InvalidValueError",
    "LeakyReLU",
    "LossCurve",
    "MLPClassifier",
    "MLPRegressor",
    "Mish",
    "MissingDependencyError",
    "MissingFileError",
    "Network",
    "NoKernelWarning",
    "NonFiniteError",
    "NotFittedError",
    "OneCycleRate",
    "Optimizer",
    "OutOfDeviceMemoryError",
    "ProgressBar",
    "Quantile",
    "ReLU",
    "ReduceOnPlateauRate",
    "ResumeWarning",
    "Run",
    "Schedule",
    "ShapeError",
    "SiLU",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "Softplus",
    "StepRate",
    "Tanh",
    "TrainingDivergedError",
    "UnknownCategoryWarning",
    "WarmUpRate",
    "WeightAverage",
    "__version__",
    "classic",
    "data",
    "data_initializers",
    "diagnostics",
    "estimators",
    "evaluate",
    "export_onnx",
    "export_safetensors",
    "export_torch",
    "fit",
    "from_sklearn",
    "from_torch",
    "lecture",
    "load",
    "load_state_dict",
    "to_sklearn",
    "to_torch",
]

if not TYPE_CHECKING:  # whose checkers would take it for every name there is

    def __getattr__(name: str) -> Any:
        """Import a room of the package when it is first asked for: ``import gpunet`` stays as quick as NumPy."""
        if name in {"classic", "data", "data_initializers", "diagnostics", "estimators", "lecture"}:
            return import_module(f"gpunet.{name}")
        if name in {"MLPClassifier", "MLPRegressor"}:
            return getattr(import_module("gpunet.estimators"), name)
        if name in __all__ and (name.startswith(("export_", "from_", "to_")) or name == "load_state_dict"):
            return getattr(import_module("gpunet.interchange"), name)
        raise AttributeError(f"module 'gpunet' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

"""Networks of other libraries as gpunet's, and gpunet's as theirs: weights by name, the same outputs; and as ONNX."""

from gpunet.interchange.onnx import export_onnx
from gpunet.interchange.sklearn import from_sklearn, to_sklearn
from gpunet.interchange.state_dict import export_safetensors, load_state_dict
from gpunet.interchange.torch import export_torch, from_torch, to_torch

__all__ = [
    "export_onnx",
    "export_safetensors",
    "export_torch",
    "from_sklearn",
    "from_torch",
    "load_state_dict",
    "to_sklearn",
    "to_torch",
]

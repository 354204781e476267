"""Networks of other libraries as gpunet's, and gpunet's as theirs: weights by name, the same outputs."""

from gpunet.interchange.sklearn import from_sklearn, to_sklearn
from gpunet.interchange.torch import from_torch, to_torch

__all__ = ["from_sklearn", "from_torch", "to_sklearn", "to_torch"]

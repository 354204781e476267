"""The contenders, one file for each library; :func:`find_provider` imports only the one that is asked for."""

from __future__ import annotations

import importlib

from benchmarks.providers.base import Provider
from gpunet.errors import InvalidValueError, unknown_name

# name: (module, class)
PROVIDERS: dict[str, tuple[str, str]] = {
    "gpunet-numpy": ("gpunet", "GpunetNumpy"),
    "gpunet-fast-cpu": ("gpunet", "GpunetFastCpu"),
    "torch-eager": ("torch", "TorchEager"),
    "torch-tuned": ("torch", "TorchTuned"),
    "torch-compile": ("torch_compiled", "TorchCompile"),
    "jax": ("jax", "Jax"),
    "sklearn": ("sklearn", "Sklearn"),
    "keras": ("keras", "Keras"),
    "gpunet-cuda": ("gpunet", "GpunetCuda"),
    "gpunet-cuda-unfused": ("unfused", "GpunetCudaUnfused"),
    "torch-cuda-eager": ("torch", "TorchCudaEager"),
    "torch-cuda-tuned": ("torch", "TorchCudaTuned"),
    "torch-cuda-compile": ("torch_compiled", "TorchCudaCompile"),
    "torch-cuda-graph": ("torch_compiled", "TorchCudaGraph"),
    "jax-cuda": ("jax", "JaxCuda"),
    "keras-cuda": ("keras", "KerasCuda"),
}
# Ratios are taken to the first of these that took part.
RATIOS_TO = ("gpunet-cuda", "gpunet-numpy")
# Libraries that the machine's ceilings are measured with; the best one counts.
CEILINGS = {"cpu": ("ceiling-numpy", "ceiling-torch"), "cuda": ("ceiling-cupy",)}
_CEILINGS = {
    "ceiling-numpy": ("ceiling", "CeilingNumpy"),
    "ceiling-torch": ("ceiling", "CeilingTorch"),
    "ceiling-cupy": ("ceiling", "CeilingCupy"),
}
# Whose float64 the outputs are compared with.
REFERENCE = "gpunet-numpy"


def find_provider(name: str) -> Provider:
    """Return the provider with a name, or of a class of your own, ``package.module:Class``.

    Raises
    ------
    InvalidValueError
        There is none; the message has the nearest name.
    """
    if ":" in name:
        path, _, cls = name.partition(":")
    else:
        known = PROVIDERS | _CEILINGS
        if name not in known:
            raise unknown_name("provider", name, PROVIDERS)
        module, cls = known[name]
        path = f"benchmarks.providers.{module}_provider"
    try:
        provider: Provider = getattr(importlib.import_module(path), cls)()
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"provider: {name!r} cannot be loaded: {error}.") from None
    return provider

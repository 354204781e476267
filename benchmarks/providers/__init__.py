"""The contenders, one file for each library; :func:`find_provider` imports only the one that is asked for."""

from __future__ import annotations

import importlib

from benchmarks.providers.base import Provider
from gpunet.errors import unknown_name

# name: (module, class). The first is what ratios are taken to on a CPU.
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


def find_provider(name: str) -> Provider:
    """Return the provider with a name.

    Raises
    ------
    InvalidValueError
        There is none; the message has the nearest name.
    """
    if name not in PROVIDERS:
        raise unknown_name("provider", name, PROVIDERS)
    module, cls = PROVIDERS[name]
    provider: Provider = getattr(importlib.import_module(f"benchmarks.providers.{module}_provider"), cls)()
    return provider

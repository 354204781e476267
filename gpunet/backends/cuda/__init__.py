"""The CUDA backend. Each file named like one in ``kernels/`` has that file's instantiations, grids and launches."""

from gpunet.backends.cuda.backend import CudaBackend

__all__ = ["CudaBackend"]

"""The CUDA C++ sources, which :mod:`gpunet.backends.cuda.sources` reads."""

"""Compiles every CUDA kernel for every architecture, on a machine that needs neither a GPU nor a driver.

NVRTC, the compiler that CuPy uses at run time, comes as a package of its own. What it tells about each kernel
(registers, shared memory, spills) is held against ``kernels/budgets.json``, and what its threads tell one another by
against CUDA's memory model.
"""

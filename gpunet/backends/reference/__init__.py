"""Every operation in a few readable lines: the specification, which all other versions are tested against.

Each function takes the array module ``xp`` first, NumPy or CuPy, and computes on arrays of it; the files are named
like the kernels in ``kernels/``. An operation is coarse (a whole fused step of a layer), has its backward beside it and
writes into the buffers it is given. Here it may allocate what it likes, and rounds as plain sums do.

Conventions: arrays are C-contiguous and of one dtype (float32 or float64), checked where data enter the network and
not again here. n is the number of rows (examples) of a batch, m the number of columns (units). Labels and indices
are int32.
"""

"""The compiled kernels. Each does one stripe of an operation, given the address of its arguments: int64 words."""

"""Data-parallel training on several processes, GPUs and machines, with the weights that one process would have."""

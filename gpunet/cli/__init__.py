"""The shell command ``gpunet`` and its subcommands: train, predict, evaluate, lecture, info, verify, kernels, bench."""

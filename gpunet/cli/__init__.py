"""The shell command ``gpunet`` and its subcommands: train, predict, evaluate, lecture, info, kernels, bench."""

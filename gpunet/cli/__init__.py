"""The shell commands: train, predict, evaluate, info."""

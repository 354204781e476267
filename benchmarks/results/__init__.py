"""Results of the benchmark suite that come with gpunet, installed as ``gpunet.benchmark_results``: one file for each
machine and version. ``make benchmark`` writes them; ``gpunet bench report`` shows them.
"""

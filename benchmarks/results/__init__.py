"""Results of the benchmarks that come with gpunet, also ``gpunet.bench.results``: a file for each machine and version.

``make benchmark`` writes them; ``gpunet bench report`` shows them.
"""

"""Result files of the benchmarks: read, shown as tables and figures, compared. Also :mod:`gpunet.bench.report`.

It imports its siblings and gpunet alone, so that it works under both of its names.
"""

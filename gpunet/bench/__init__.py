"""Results of the benchmark suite: the files that ``benchmarks/`` writes, tables, plots and comparisons."""

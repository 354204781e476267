"""The benchmark suite; docs/performance.md says how it measures. Run it with ``make benchmark``."""

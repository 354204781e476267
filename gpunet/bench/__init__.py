"""What the folder ``benchmarks/`` has for who only reads results: the package ``report`` and the folder ``results``.

An installation has the two here, a checkout in ``benchmarks/``.
"""

from pathlib import Path

if not (Path(__file__).parent / "report").is_dir():
    __path__.append(str(Path(__file__).parents[2] / "benchmarks"))

"""Wheel and source distribution in clean environments: oldest and newest packages that are supported, several Pythons.

``python tests/check_installs.py 3.10 3.14`` needs ``uv`` and ``build`` beside its own interpreter (``make
test-installs`` brings them), and those interpreters somewhere that uv looks: on PATH, or of pyenv.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# uv's words for the newest packages, and for the oldest that pyproject.toml and the interpreter allow.
RESOLUTIONS = {"newest": "highest", "oldest": "lowest-direct"}
# Runs away from the checkout, on NumPy alone at first.
BARE = """
import numpy, gpunet
assert "site-packages" in gpunet.__file__, gpunet.__file__
X, y = numpy.eye(4), numpy.arange(4)
network = gpunet.Network([4, 8, 4], device="cpu")
gpunet.fit(network, X, y, epochs=30, batch_size=4)
network.save("bare.npz")
assert gpunet.load("bare.npz").predict(X).shape == (4,)
"""
WITH_EXTRAS = """
import numpy, sklearn, gpunet
from importlib.metadata import version
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
model = gpunet.MLPClassifier((32,), max_iter=15, tol=1, learning_rate_init=0.01, device="cpu").fit(X[:1400], y[:1400])
assert model.score(X[1400:], y[1400:]) > 0.85
network = gpunet.load("digits/model.safetensors", device="cpu")
assert network.predict(gpunet.data.scale_inputs(network, X)).shape == y.shape
compiled, plain = (gpunet.Network([64, 16, 10], device=f"cpu:{name}") for name in ("compiled", "numpy"))
for one in (compiled, plain):
    gpunet.fit(one, X / 16, y, epochs=1)
numpy.testing.assert_allclose(compiled.logits(X / 16), plain.logits(X / 16), rtol=1e-3, atol=1e-3)
names = ("numpy", "scikit-learn", "scipy", "numba", "pandas", "onnx", "safetensors")
print(", ".join(f"{name} {version(name)}" for name in names))
"""
TESTS = (
    "tests/test_network.py",
    "tests/test_serialization.py",
    "tests/data/test_tables.py",
    "tests/estimators/test_contract.py",
    "tests/interchange/test_onnx_models.py",
    "tests/interchange/test_state_dict.py",
)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command on one thread and return what it prints, or raise with it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))[:200]}\n{done.stdout}")
    return done.stdout


def check(version: str, packages: str, wheel: Path, archive: Path, source: Path, folder: Path) -> str:
    """Install both distributions for one interpreter, use and test them, and return the versions and the outcome."""
    python = folder / "environment/bin/python"
    uv = [sys.executable, "-m", "uv", "--no-python-downloads"]
    # pyproject.toml beside them: "direct" are the packages that are named there, not gpunet itself.
    install = [*uv, "pip", "install", "--python", python, "--resolution", RESOLUTIONS[packages]]
    install += ["--only-binary", ":all:", "--requirements", source / "pyproject.toml"]
    run(*uv, "venv", "--python", version, folder / "environment")
    run(*install, "--no-binary", "gpunet", archive)
    run(python, "-c", BARE, cwd=folder)
    run(*install, "--extra", "cli", "--extra", "onnx", "--reinstall-package", "gpunet", wheel)
    run(python, "-c", BARE, cwd=folder)
    run(folder / "environment/bin/gpunet", "train", "digits", "--epochs", "2", "--out", folder / "digits", cwd=folder)
    versions = run(python, "-c", WITH_EXTRAS, cwd=folder).strip()
    tools = ["pytest>=8.2", "pytest-timeout>=2.4", "hypothesis>=6.100"]
    run(*uv, "pip", "install", "--python", python, *tools)
    # Warnings of packages newer or older than those in development are no errors of gpunet's.
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
    tested = run(*pytest, "-m", "not oracle and not gpu", *TESTS, cwd=source)
    return f"{versions}: {tested.splitlines()[-1]}"


def main(versions: list[str]) -> int:
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        built = Path(name) / "built"
        run(sys.executable, "-m", "build", "--outdir", built, ROOT)
        (wheel,), (archive,) = built.glob("*.whl"), built.glob("*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(built, filter="data")
        source = built / archive.name.removesuffix(".tar.gz")
        for version in versions or VERSIONS:
            for packages in RESOLUTIONS:
                folder = Path(name) / f"{version}-{packages}"
                folder.mkdir()
                try:
                    print(f"Python {version}, {packages}: {check(version, packages, wheel, archive, source, folder)}")
                except RuntimeError as error:
                    failures += 1
                    print(f"Python {version}, {packages}: FAILED: {error}")
                sys.stdout.flush()
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

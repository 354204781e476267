"""What is installed: small, quick to import, and whole."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

import gpunet
from tests.emulation.compiler import cache_folder
from tests.helpers.checkout import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def configuration():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_needs_numpy_only():
    """Nothing outside NumPy and the standard library is loaded by `import gpunet`."""
    loaded = run(
        "import sys, numpy; before = set(sys.modules); import gpunet; "
        "print(' '.join(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    ).split()
    assert "gpunet" in loaded
    ours = {name for name in loaded if name not in sys.stdlib_module_names and "cython" not in name}
    assert ours == {"gpunet", "numpy"}  # numpy.random is loaded on demand
    assert configuration()["project"]["dependencies"] == ["numpy>=2"]


def test_what_the_documents_name_is_there_after_import_gpunet_alone():
    """And a room is imported no sooner than that."""
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/python.md"))
    names = sorted(set(re.findall(r"\bgpunet((?:\.[A-Za-z_]+)+)\(?", text)))
    rooms = {"classic", "data", "data_initializers", "diagnostics"}
    assert rooms <= {name.split(".")[1] for name in names}
    loaded = run(
        "import sys, gpunet; "
        "print(*{name.split('.')[1] for name in sys.modules if name.startswith('gpunet.')}); "
        f"[eval('gpunet' + name) for name in {names}]; gpunet.lecture; "
        "assert set(gpunet.__all__) <= set(dir(gpunet))"
    ).split()
    assert "network" in loaded
    assert not {"classic", "cli", "data", "data_initializers", "diagnostics", "lecture"} & set(loaded)


def test_a_name_that_gpunet_has_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'gpunet' has no attribute 'Netwrk'"):
        gpunet.Netwrk  # noqa: B018


def test_import_survives_a_broken_cupy(tmp_path):
    """A CuPy that cannot even be imported does not keep gpunet from working."""
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text("raise ImportError('libcublas.so.13: cannot open shared object')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import gpunet; "
        "print(gpunet.Network([2, 3, 2]).backend.name)"
    )
    assert run(code).strip() == "cpu"


def test_the_map_names_every_module_and_room():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folder = ROOT / "gpunet"
    names = [path.name for path in folder.glob("*.py") if not path.name.startswith("_")]
    names += [f"gpunet/{path.parent.name}/" for path in folder.glob("*/__init__.py")]
    assert [name for name in names if name not in text] == []


def test_the_citation_is_of_this_version():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {gpunet.__version__}" in lines


def test_a_bare_checkout_imports_and_trains_on_every_backend():
    """Nothing is installed there: ``kernels/`` is found beside the package."""
    site = Path(np.__file__).parents[1]
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(site)!r}]\n"
        "import importlib.util, numpy, gpunet, gpunet.kernel_check\n"
        "from gpunet.backends.cuda import CudaBackend, sources\n"
        "from tests.emulation import EmulatedDevice\n"
        "assert importlib.util.find_spec('gpunet.kernels') is None, 'not a bare checkout'\n"
        "X, y = numpy.eye(4), numpy.arange(4)\n"
        "for device in ('auto', CudaBackend(EmulatedDevice(multiprocessor_count=2))):\n"
        "    gpunet.fit(gpunet.Network([4, 4], device=device), X, y, epochs=1)\n"
        "print(sources.folder())"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == str(ROOT / "kernels")


def test_every_package_is_listed():
    listed = set(configuration()["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "gpunet").rglob("__init__.py")}
    assert listed == found | {"gpunet.bench.report", "gpunet.bench.results", "gpunet.kernels"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution of what lies in this checkout, new files too."""
    folder = tmp_path_factory.mktemp("distribution")
    patterns = ["/.git", *(ROOT / ".gitignore").read_text(encoding="utf-8").split()]

    def ignored(parent: str, names: list[str]) -> set[str]:
        here = [pattern.strip("/") for pattern in patterns if pattern[0] != "/" or Path(parent) == ROOT]
        return {name for name in names if any(fnmatch(name, pattern) for pattern in here)}

    shutil.copytree(ROOT, folder / "checkout", ignore=ignored)
    assert (folder / "checkout" / "docs" / "figures").is_dir()
    build = [sys.executable, "-m", "build", "--sdist", "--outdir", folder, folder / "checkout"]
    subprocess.run(build, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def test_the_source_distribution_is_the_checkout_and_its_tests_run(source):
    def files(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    assert files(source.parent / "checkout") <= files(source)
    environment = os.environ | {"GPUNET_EMULATION_CACHE": str(cache_folder())}
    tests = ["tests/test_schedules.py", "tests/kernels/test_gather.py", "tests/benchmarks/test_documents.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu", *tests]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_wheel_holds_everything_and_no_package_called_kernels(source, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", source],
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "gpunet").rglob("*.py")}
    expected |= {"gpunet/py.typed", "gpunet/lecture/page.html"}
    expected |= {f"gpunet/kernels/{path.name}" for path in (ROOT / "kernels").iterdir() if path.is_file()}
    for name in ("report", "results"):
        expected |= {
            f"gpunet/bench/{name}/{path.name}" for path in (ROOT / "benchmarks" / name).iterdir() if path.is_file()
        }
    assert expected <= names
    assert {name.split("/")[0] for name in names} == {"gpunet", f"gpunet-{gpunet.__version__}.dist-info"}

    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import gpunet, gpunet.kernels; "
        "print(gpunet.__file__); print(gpunet.kernels.__file__)"
    )
    for line in run(code).splitlines():
        assert line.startswith(str(tmp_path / "site"))


@pytest.mark.parametrize("module", ["gpunet.network", "gpunet.optimizers", "gpunet.data"])
def test_the_examples_in_docstrings_hold(module):
    results = doctest.testmod(importlib.import_module(module), raise_on_error=True)
    assert results.failed == 0

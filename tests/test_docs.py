"""The site: pages run as pasted, the reference has every public name, and links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.layer_stack import LayerStack
from tests.helpers.checkout import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = ROOT / "docs"
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))]
broken_links = runpy.run_path(str(DOCS / "links.py"))["broken_links"]


def run(page: str, *headings: str, replace: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """Run the blocks of a page, or of what precedes its headings and of these, and return their names."""
    first, *sections = (DOCS / page).read_text(encoding="utf-8").replace(*replace).split("\n## ")
    wanted = [section for section in sections if not headings or section.partition("\n")[0] in headings]
    assert len(wanted) == len(headings or sections)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", "\n".join([first, *wanted]), re.DOTALL):
        exec(block, names)
    return names


def test_the_start_page_ends_with_a_network_that_reads_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    names = run("index.md")
    network = gpunet.load("digits.safetensors")
    assert (network.predict(names["X_test"]) == names["y_test"]).mean() > 0.9


def test_a_network_of_scikit_learn_answers_as_it_did() -> None:
    pytest.importorskip("sklearn")
    names = run("coming-from.md", "From scikit-learn")
    np.testing.assert_array_equal(names["network"].predict(names["X"]), names["fitted"].predict(names["X"]))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize(
    ("library", "heading", "dtype"), [("torch", "From PyTorch", "float64"), ("keras", "From Keras", "float32")]
)
def test_training_there_and_here_is_the_same(
    library: str, heading: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """42 steps, each of which rounds and hands on what was rounded before, and outputs of a size of 10."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("sklearn")
    pytest.importorskip(library, reason="run by `make test-oracle`, which installs it")
    assert run("coming-from.md", heading)["difference"] < 42 * 10 * np.finfo(dtype).eps


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
def test_losses_are_as_many_times_as_large_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    torch, keras = (pytest.importorskip(name, reason="run by `make test-oracle`") for name in ("torch", "keras"))
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    X, targets, labels = generator.standard_normal((20, 5)), generator.standard_normal((20, 3)), np.arange(20) % 3
    probabilities = generator.dirichlet(np.ones(3), 20)

    def ours(loss: str, y: Any) -> tuple[Any, float]:
        network = gpunet.Network([5, 3], loss=loss, dtype="float64", batch_norm=False, device="cpu")
        return network.logits(X), network.loss_and_gradients(X, y)[0]

    def theirs(loss: Any, o: Any, y: Any) -> float:
        return float(loss(torch.tensor(o), torch.tensor(y)))

    huber, pinball = ours("huber(0.7)", targets), ours("quantile(0.3)", targets)
    smoothed, soft = ours("softmax_cross_entropy(0.1)", labels), ours("softmax_cross_entropy", probabilities)
    from_logits = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    for (outputs, value), expected in [
        (huber, 3 * theirs(torch.nn.HuberLoss(delta=0.7), huber[0], targets)),
        (huber, 3 * 0.7 * theirs(torch.nn.SmoothL1Loss(beta=0.7), huber[0], targets)),
        (huber, 3 * float(keras.losses.Huber(delta=0.7)(targets, huber[0]))),
        (pinball, 3 * metrics.mean_pinball_loss(targets, pinball[0], alpha=0.3)),
        (smoothed, theirs(torch.nn.CrossEntropyLoss(label_smoothing=0.1), smoothed[0], labels)),
        (smoothed, float(from_logits(np.eye(3)[labels], smoothed[0]))),
        (soft, theirs(torch.nn.CrossEntropyLoss(), soft[0], probabilities)),
    ]:
        assert outputs.shape == (20, 3)
        assert value == pytest.approx(expected, rel=20 * float(np.finfo(np.float32).eps))  # Keras computes in float32


def listed() -> set[str]:
    """Return what the pages of the reference list, each name with its module."""
    found: set[str] = set()
    for page in (DOCS / "api").glob("*.rst"):
        for part in page.read_text(encoding="utf-8").split(".. currentmodule:: ")[1:]:
            module, _, rest = part.partition("\n")
            block = re.search(r"\.\. autosummary::\n(?: +:.*\n)*\n((?: +\S+\n?)+)", rest)
            assert block is not None, (page.name, module)
            found |= {f"{module}.{name}" for name in block[1].split()}
    return found


@pytest.mark.parametrize(
    "module", ["gpunet", "gpunet.classic", "gpunet.data", "gpunet.data_initializers", "gpunet.diagnostics"]
)
def test_the_reference_lists_every_public_class_and_function(module: str) -> None:
    """Modules have pages of their own, and tables of names are in the text."""
    public = import_module(module)
    names = {f"{module}.{name}" for name in public.__all__ if callable(getattr(public, name))}
    assert not names - listed()


# What the reference shows of a network and its layers: a new method is for users, and stands here, or is among INTERNAL
# in docs/conf.py.
SHOWN = {
    "LayerStack": "allocate backward backward_layers differentiate first_non_finite forward forward_layers "
    "gradient_numbers has_probabilities is_classifier is_finite loss minimum_batch parameter_count places set_step "
    "shapes steps unscale_gradients",
    "Network": "classes configuration get_parameters get_state logits loss_and_gradients predict predict_proba "
    "reset_parameters save set_parameters",
}


@pytest.mark.parametrize("owner", [gpunet.Network, LayerStack], ids=lambda owner: owner.__name__)
def test_every_method_of_a_network_is_shown_in_the_reference_or_internal(owner: type) -> None:
    (table,) = (
        node.value
        for node in ast.parse((DOCS / "conf.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INTERNAL"
    )
    internal = ast.literal_eval(table)[owner.__name__].split()
    assert sorted([*internal, *SHOWN[owner.__name__].split()]) == sorted(n for n in vars(owner) if n[0] != "_")


def test_the_page_of_kernels_has_a_row_for_each() -> None:
    budgets = json.loads((ROOT / "kernels" / "budgets.json").read_text(encoding="utf-8"))["registers"]
    kernels = {kernel.partition("<")[0] for found in budgets.values() for kernel in found}
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "kernels.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert kernels <= set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_the_picture_of_the_rooms_stands_as_the_imports_do() -> None:
    """A row is drawn above another where it may import that, and no room is missing."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    order = {name: place for place, layer in enumerate(layers) for name in re.findall(r"gpunet\.(\w+)", layer)}
    picture = (DOCS / "architecture.svg").read_text(encoding="utf-8")
    rows: dict[float, set[str]] = {}
    for height, name in re.findall(r'y="([\d.]+)" class="room">(\w+)<', picture):
        rows.setdefault(float(height), set()).add(name)
    places = [{order[name] for name in rows[height]} for height in sorted(rows)]
    assert [len(one) for one in places] == [1] * len(places)
    assert places == sorted(places, key=min)
    drawn = {*re.findall(r'class="part-name">(\w+)<', picture), *set().union(*rows.values())}
    rooms = {path.parent.name for room in ("", "backends") for path in (ROOT / "gpunet" / room).glob("*/__init__.py")}
    assert rooms - {"bench"} <= drawn  # which lies in benchmarks/


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_links_to_in_the_checkout_are_there(page: str) -> None:
    """Of links to files that the site does not hold it shows the text alone, so building it does not look at them."""
    path = ROOT / page
    links = re.findall(r"\]\((?!\w+:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    """`make docs` calls this for the built site."""
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "theme.html").write_text('<a href="{{ pathto(it) }}">')
    (tmp_path / "guide").mkdir()
    (tmp_path / "figure one.svg").write_text("<svg/>")
    (tmp_path / "index.html").write_text(
        '<h1 id="start">1</h1> <a href="#start"> <a href="#"> <a href="guide/first.html#%C3%BC"> <a href="mailto:a@b">'
        '<img src="figure%20one.svg"> <a href="https://example.org/no.html"> <a href="guide/first.html#start">'
        '<a href="second.html"> <a href="guide"> <a href="#end"> <img src="figure.svg">'
    )
    (tmp_path / "guide" / "first.html").write_text('<a name="ü"> <a href="../index.html"> <a href="index.html">')
    assert broken_links(tmp_path) == [
        "guide/first.html: index.html",
        "index.html: #end",
        "index.html: figure.svg",
        "index.html: guide",
        "index.html: guide/first.html#start",
        "index.html: second.html",
    ]

"""The site that `make docs` builds: the pages of this folder, and the reference from the docstrings."""

from __future__ import annotations

import re
import sys
from itertools import chain
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxTranslator
from sphinx.util.logging import getLogger

import gpunet

sys.path.insert(0, str(Path(__file__).parent))
from links import broken_links

project = "gpunet"
author = "The gpunet authors"
project_copyright = author
version = release = gpunet.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
nitpicky = True  # a reference to what is not there is a warning, and `make docs` takes warnings for errors

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # those that GitHub gives headings

toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # the docstrings say types, with their shapes
numpydoc_show_class_members = False  # the templates list them
copybutton_prompt_text = ">>> "
copybutton_only_copy_prompt_lines = False

html_title = "gpunet"
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["gpunet.css"]
html_sidebars: dict[str, list[str]] = {"changelog": [], "citation": []}  # which have no pages beside them
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "header_links_before_dropdown": 6,
}
html_context = {"default_mode": "auto"}  # of the two themes, that of the system
html_math_renderer = "mathml"


def typeset(node: nodes.Element, *, as_block: bool) -> str:
    """Return a formula as MathML, which browsers typeset themselves: no script, and nothing loaded from elsewhere."""
    try:
        # Bars of norms do not grow with the sum beside them.
        return tex2mathml(node.astext(), as_block=as_block).replace("<mo>‖", '<mo stretchy="false">‖')
    except MathError as error:
        getLogger(__name__).warning("%s: %s", node.astext(), error, location=node)
        return ""


def inline_math(translator: SphinxTranslator, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(typeset(node, as_block=False))
    raise nodes.SkipNode


def displayed_math(translator: SphinxTranslator, node: nodes.math_block) -> None:
    """Write a formula that stands by itself."""
    translator.body.append(f'<div class="displayed">{typeset(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def suit_links(source: list[str]) -> None:
    """Call a page by its title, and leave of a link to a file of the checkout, that no page shows, its text or name."""
    source[0] = re.sub(r"\[(\S+[./]\S*)\]\(\.\./[^)]*\)", r"`\1`", source[0])
    source[0] = re.sub(r"\[([^]]+)\]\(\.\./[^)]*\)", r"\1", source[0])
    source[0] = re.sub(r"\[(docs/)?[\w-]+\.md\]\(", "[](", source[0])


def suit_tables(document: nodes.document) -> None:
    """Put the name of its column into each cell of tables of three to five columns, which a narrow screen shows.

    Paths and names in them may be broken where a part of them ends.
    """
    for table in document.findall(nodes.table):
        head = next(table.findall(nodes.thead), None)
        names = [] if head is None else [entry.astext() for entry in head.findall(nodes.entry)]
        if not 3 <= len(names) <= 5:
            continue
        table["classes"].append("stacked")
        for literal in list(table.findall(nodes.literal)):
            first, *others = re.split(r"(?<=[/_])(?=\w)", literal.astext())
            parts = [(nodes.raw(text="<wbr>", format="html"), nodes.Text(part)) for part in others]
            literal.children = []
            literal.extend([nodes.Text(first), *chain.from_iterable(parts)])
        for row in next(table.findall(nodes.tbody)).findall(nodes.row):
            for name, entry in zip(names[1:], row.children[1:], strict=False):
                if entry.astext():
                    entry.insert(0, nodes.inline(text=name, classes=["column"]))


def check_links(app: Sphinx, exception: Exception | None) -> None:
    """Warn of each link that leads nowhere in the site."""
    for link in broken_links(Path(app.outdir)) if exception is None else ():
        getLogger(__name__).warning("a link that leads nowhere: %s", link)


# What the rooms of the package ask of one another, and may change without notice.
INTERNAL = {
    "LayerStack": "copy_weights guard inference_work kept_averages kept_gradients kept_loss_scale loss_scale_state "
    "narrow_pass narrow_stack training_work",
    "Network": "check_inputs check_targets check_values check_weights finite_logits finite_outputs learn_classes "
    "on_host penalty",
}


def is_left_out(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leave out what is internal, and fields of named tuples: their class says more than "Alias for field number 0"."""
    function = getattr(member, "fget", member)
    owner, _, own_name = getattr(function, "__qualname__", "").rpartition(".")
    is_internal = own_name in INTERNAL.get(owner, "").split()
    is_alias = str(getattr(member, "__doc__", "")).startswith("Alias for field number")
    return True if is_internal or is_alias else None


def setup(app: Sphinx) -> None:
    """Register what is not configuration."""
    app.connect("source-read", lambda app, page, source: suit_links(source))
    app.connect("include-read", lambda app, path, page, source: suit_links(source))
    app.connect("doctree-resolved", lambda app, document, page: suit_tables(document))
    app.connect("build-finished", check_links)
    app.connect("autodoc-skip-member", is_left_out)
    app.add_html_math_renderer("mathml", inline_renderers=(inline_math, None), block_renderers=(displayed_math, None))

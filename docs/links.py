"""Links within the built site, each of which has to lead to a page, file or anchor that is there."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and the anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, and its name."""
        given = dict(attrs)
        self.links |= {link for name in ("href", "src", "data") if (link := given.get(name))}
        self.anchors |= {anchor for name in ("id", "name") if (anchor := given.get(name))}


def broken_links(site: Path) -> list[str]:
    """Return the links of a folder's pages that lead nowhere in it, as ``page: link``; ``_static`` is the theme's."""
    site = site.resolve()
    found = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in found}
    return [
        f"{path.relative_to(site)}: {link}"
        for path, page in pages.items()
        for link in sorted(page.links)
        if not _leads_somewhere(link, path, pages)
    ]


def _leads_somewhere(link: str, start: Path, pages: dict[Path, Page]) -> bool:
    scheme, host, place, _, anchor = urlsplit(link)
    if scheme or host:  # elsewhere, which nobody asks without a network
        return True
    end = (start.parent / unquote(place)).resolve() if place else start
    return unquote(anchor) in pages[end].anchors if end in pages else end.is_file()

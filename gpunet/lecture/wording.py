"""Numbers and lists as the paragraphs write them."""

from __future__ import annotations

from collections.abc import Iterable


def listing(parts: Iterable[object]) -> str:
    """Return ``"a, b and c"``."""
    words = [str(part) for part in parts]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def tiny(value: float) -> str:
    """Return a difference to one digit, ``"3e-16"``, or ``"0"``."""
    return f"{value:.0e}" if value else "0"

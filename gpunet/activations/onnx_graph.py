"""What an activation sees of the graph that is exported."""

from __future__ import annotations

from typing import Any, Protocol


class OnnxGraph(Protocol):
    """What an activation adds its nodes to."""

    def add(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output, made up where none is given."""

    def constant(self, value: float) -> str:
        """Return the name of a number of the network's dtype."""

"""What the layer check finds, and the circle in a graph of files."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["Breach", "circle"]

Name = TypeVar("Name")


class Breach(NamedTuple):
    """One place that breaks a rule."""

    path: Path
    line: int
    what: str


def circle(uses: Mapping[Name, Iterable[Name]]) -> list[Name]:
    """Return a circle of a graph: each name uses the one after it.

    Args:
        uses: For each file the files that it uses.

    Returns:
        The names, the first again at the end; nothing where there is no circle.
    """
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []

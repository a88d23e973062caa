"""A table for people: by rich on a terminal, plain everywhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["print_table"]


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table.

    Args:
        title: Stands above it.
        rows: The first one names the columns.
    """
    try:
        from rich.console import Console  # noqa: PLC0415 - it may be missing
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        _print_plain(title, rows)
        return
    if not sys.stdout.isatty():
        _print_plain(title, rows)
        return
    table = Table(*rows[0], title=title)
    for row in rows[1:]:
        style = {"met": "green", "MISSED": "red"}.get(row[-2], "")
        table.add_row(*row, style=style)
    Console().print(table)


def _print_plain(title: str, rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for row in rows:
        line = "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True))
        print(line.rstrip())

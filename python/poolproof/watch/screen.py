"""How it looks: three tables that fit into 80 columns, with colours or without."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from poolproof.watch.sources import ORDERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from poolproof.watch.facts import HeldConnection, PoolLine, Server, Session, View

__all__ = ["screen"]

_BAD: Final = "bold red"
_SOFT: Final = "dim"
_LONG_HELD_S: Final = 5.0
# It writes once a second; one that does not is stopped, or in a call that keeps the
# interpreter's lock.
_SILENT_S: Final = 5.0
_HINT: Final = "  ".join(f"{key} {name}" for key, (name, _) in ORDERS.items())
_POOL_LINES: Final = 12
_ENDLESS: Final = 10_000
_AROUND: Final = 14
_AROUND_STRANGERS: Final = 6
_SHORT: Final = {
    "idle in transaction": "idle in tx",
    "idle in transaction (aborted)": "failed tx",
}
_MINUTE: Final = 60.0
_LINE_END: Final = Text("\n")


def screen(view: View, *, order: str, height: int | None, keys: bool) -> RenderableType:
    """Draw what was seen.

    Args:
        view: It.
        order: One of `ORDERS`.
        height: Lines that there are; None for as many as it takes.
        keys: Whether there is a keyboard to be told of.
    """
    # What is left for rows, beside heads, rules and what says that there are more.
    left = _ENDLESS if height is None else height - _AROUND
    pools = view.pools[: max(1, min(_POOL_LINES, left // 3) if height else _ENDLESS)]
    left -= len(pools)
    holders = view.holders[: max(1, left)]
    left -= len(holders) + _AROUND_STRANGERS
    parts: list[RenderableType] = [_head(view)]
    if view.directory is not None:
        parts += [_pools(pools, len(view.pools)), _holders(holders, view, order)]
    else:
        left = _ENDLESS if height is None else height - _AROUND_STRANGERS
    if left > 0 and view.strangers:
        parts.append(_strangers(view.strangers[:left]))
    if keys:
        parts.append(Text(f"q quit  sort: {_HINT}", style=_SOFT, overflow="ellipsis"))
    return Group(*parts)


def _head(view: View) -> Text:
    head = Text(overflow="ellipsis", no_wrap=True)
    head.append(time.strftime("%H:%M:%S"))
    if view.directory is not None:
        words = "process" if view.processes == 1 else "processes"
        head.append(f"  {view.processes} {words} in {view.directory}")
        if not view.processes:
            head.append(
                "\nnone says anything: set POOLPROOF_METRICS_DIR for the application "
                "to this directory",
                style=_SOFT,
            )
    if view.server is not None:
        head.append("\n")
        head.append_text(_server(view.server))
    return head


def _server(server: Server) -> Text:
    if server.trouble:
        return Text(f"no answer of the server: {server.trouble}", style=_BAD)
    count = len(server.sessions)
    text = Text(f"{server.shown}: ")
    style = _BAD if count >= 0.9 * server.most else ""
    text.append(f"{count} of {server.most} sessions", style=style)
    states = ", ".join(f"{number} {state}" for state, number in server.states.items())
    text.append(f" ({states})" if states else "")
    return text


def _table(heads: Mapping[str, int], rows: Sequence[Sequence[str | Text]]) -> Table:
    """Make a table.

    Args:
        heads: Columns and their widths. Numbers are to the right, and keep theirs; of a
            negative width is a text that shares what room is left in this proportion.
        rows: A cell for each column, or for the first few.
    """
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, expand=True, padding=(0, 1, 0, 0)
    )
    for head, width in heads.items():
        table.add_column(
            head,
            justify="right" if width > 0 else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=width if width > 0 else 5,
            ratio=None if width > 0 else -width,
        )
    if rows:
        # A column is one text of many lines: rich takes as long for each cell.
        columns = itertools.zip_longest(*rows, fillvalue="")
        table.add_row(*(_LINE_END.join(map(_text, column)) for column in columns))
    return table


def _text(cell: str | Text) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _pools(lines: tuple[PoolLine, ...], every: int) -> Table:
    heads = ("idle", "used", "max", "waiting", "lent", "late", "faults", "forks")
    rows: list[tuple[str | Text, ...]] = [
        (
            str(line.process_id),
            _named(line),
            str(line.idle),
            str(line.used),
            "-" if line.most is None else f"{line.most:.0f}",
            _marked(line.waiting, f" {_length(line.oldest_wait_s)}"),
            _rounded(line.checkouts),
            _marked(line.timeouts),
            _marked(line.faults),
            str(line.forks),
        )
        for line in lines
    ]
    if every > len(lines):
        rows.append(("", Text(f"and {every - len(lines)} more", style=_SOFT)))
    columns = {"process": 7, "pool": -1, **{head: len(head) for head in heads}}
    return _table(columns, rows)


def _named(line: PoolLine) -> str | Text:
    """Name a pool, and say in front what is odd about its process."""
    if line.behind_s >= _SILENT_S:
        return Text(f"silent {_length(line.behind_s)}! {line.pool}", style=_BAD)
    return f"(main) {line.pool}" if line.is_main else line.pool


def _holders(lines: tuple[HeldConnection, ...], view: View, order: str) -> Table:
    sees_server = view.server is not None
    heads = {"held": 8, "process": 7, "scope": -3, "thread": -3, "backend": 7}
    heads |= {"driver": 6} | ({"server": -5} if sees_server else {})
    rows: list[tuple[str | Text, ...]] = []
    for line in lines:
        is_idle = line.is_busy is False
        long_idle = is_idle and line.held_s >= _LONG_HELD_S
        rows.append(
            (
                Text(_length(line.held_s), style=_BAD if long_idle else ""),
                str(line.process_id),
                line.scope or "-",
                line.thread,
                "-" if line.backend_pid is None else str(line.backend_pid),
                Text(_busy(line), style=_BAD if long_idle else ""),
                *((_said(line.session),) if sees_server else ()),
            )
        )
    if len(view.holders) > len(lines):
        more = f"and {len(view.holders) - len(lines)} more"
        rows.append(("", "", Text(more, style=_SOFT)))
    table = _table(heads, rows)
    table.caption = f"{len(view.holders)} held, sorted by {ORDERS[order][0]}"
    table.caption_justify = "left"
    return table


def _strangers(lines: tuple[Session, ...]) -> Table:
    rows = [
        (
            _length(line.transaction_s or 0.0),
            str(line.backend_pid),
            line.application or "-",
            line.state or "-",
        )
        for line in lines
    ]
    heads = {"open for": 8, "backend": 7, "application": -1, "state": -1}
    table = _table(heads, rows)
    table.title = "idle in a transaction, and of no pool here"
    table.title_justify = "left"
    return table


def _busy(line: HeldConnection) -> str:
    if line.is_busy is None:
        return "-"
    return "busy" if line.is_busy else "idle"


def _said(session: Session | None) -> str:
    if session is None:
        return "-"
    if session.state is None:
        return "hidden"
    words = [_SHORT.get(session.state, session.state)]
    if session.since_s is not None:
        words.append(_length(session.since_s))
    if session.state == "active":
        words += [word for word in (session.verb, session.waits_for) if word]
    return " ".join(words)


def _marked(count: int, behind: str = "") -> Text:
    """Write a count that had better be 0; it can be told from 0 without colour."""
    return Text(f"{count}{behind}!", style=_BAD) if count else Text("0", style=_SOFT)


def _rounded(count: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 10_000)):
        if count >= size:
            divided = count / (size if unit == "M" else 1000)
            return f"{divided:.0f}{unit}"
    return str(count)


def _length(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), int(_MINUTE))
    if minutes < _MINUTE:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"

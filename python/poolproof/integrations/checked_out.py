"""Who has which connection of this process, in which statement, since when."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from poolproof.fork import renewal
from poolproof.pool import deadlines
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, ExceptionContext

__all__ = ["Lent", "lent", "watch_statements"]

_BEGAN = "_poolproof_statement_began"


@dataclasses.dataclass(frozen=True, slots=True)
class Lent:
    """One connection that is out.

    Attributes:
        pool: The pool's name.
        thread: Name of the thread that checked it out.
        backend_pid: The server's process id of the session, when it is known.
        held_s: Since the checkout, in seconds.
        statement_s: Since the statement that is under way began, in seconds; None when
            none is, or when statements are not watched.
    """

    pool: str
    thread: str
    backend_pid: int | None
    held_s: float
    statement_s: float | None

    def __str__(self) -> str:
        """One line for a log."""
        doing = (
            "no statement is under way"
            if self.statement_s is None
            else f"its statement runs for {self.statement_s:.2f} s"
        )
        return (
            f"{self.thread} holds backend {self.backend_pid or 'unknown'} of pool "
            f"{self.pool!r} for {self.held_s:.2f} s; {doing}"
        )


def lent() -> list[Lent]:
    """List the connections of this process's pools that are out, longest first."""
    now = time.monotonic()
    found: list[Lent] = []
    for pool in renewal.pools():
        holders = pool.holders_by_slot()
        for entry in pool.entries():
            if entry.fairy_ref is None or entry.dbapi_connection is None:
                continue
            began: float | None = getattr(entry, _BEGAN, None)
            holder = holders.get(entry.ticket.slot)
            found.append(
                Lent(
                    pool=pool.name(),
                    thread=holder.thread if holder else "an unknown thread",
                    backend_pid=deadlines.backend_pid(entry),
                    held_s=now - entry.began,
                    statement_s=None if began is None else now - began,
                )
            )
    return sorted(found, key=lambda one: one.held_s, reverse=True)


def watch_statements() -> None:
    """Remember of each statement on a `Pool` when it began. Idempotent."""
    if not event.contains(Engine, "before_cursor_execute", _begin):
        event.listen(Engine, "before_cursor_execute", _begin)
        event.listen(Engine, "after_cursor_execute", _end)
        event.listen(Engine, "handle_error", _fail)


def _entry(connection: Connection | None) -> Any:
    if connection is None or connection.closed or connection.invalidated:
        return None
    entry = getattr(connection.connection, "_connection_record", None)
    return entry if isinstance(getattr(entry, "owner", None), Pool) else None


def _begin(connection: Connection, *_arguments: object) -> None:
    entry = _entry(connection)
    if entry is not None:
        setattr(entry, _BEGAN, time.monotonic())


def _end(connection: Connection, *_arguments: object) -> None:
    entry = _entry(connection)
    if entry is not None:
        setattr(entry, _BEGAN, None)


def _fail(context: ExceptionContext) -> None:
    entry = _entry(context.connection)
    if entry is not None:
        setattr(entry, _BEGAN, None)

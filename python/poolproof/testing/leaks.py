"""Connections that a test has checked out and not given back."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.pool import Pool

import poolproof

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

_PATIENCE_S: Final = 1.0
_STEP_S: Final = 0.005
# Frames in these are not where a connection was asked for.
_BELOW: Final = tuple(
    str(Path(module.__file__ or "").parent) + "/" for module in (sqlalchemy, poolproof)
)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A checkout: of which pool, by which thread, and from where."""

    pool: str
    thread: str
    where: str

    def __str__(self) -> str:
        return f"of {self.pool}, taken by thread {self.thread} at {self.where}"


class Leaks:
    """Notes every checkout while it is entered; a context manager.

    The pools are those of SQLAlchemy, poolproof's among them, also those that exist
    already. What is checked out before does not count.
    """

    def __init__(self) -> None:
        # By the record: one is checked out once at a time.
        self._taken: dict[int, _Taken] = {}
        self._listeners: dict[str, Callable[..., None]] = {
            "checkout": self._checked_out,
            "checkin": self._given_back,
            "detach": self._given_back,
        }

    def __enter__(self) -> Self:
        for name, listener in self._listeners.items():
            event.listen(Pool, name, listener)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, listener in self._listeners.items():
            event.remove(Pool, name, listener)

    def found(self) -> str:
        """Say what is checked out; empty when nothing is, or soon nothing is."""
        begun = time.monotonic()
        while self._taken and time.monotonic() - begun < _PATIENCE_S:
            time.sleep(_STEP_S)
        taken = list(self._taken.values())
        if not taken:
            return ""
        count = f"{len(taken)} connections were" if taken[1:] else "A connection was"
        lines = [f"{count} not given back:", *(f"  {one}" for one in taken)]
        advice = "Close each where it was taken: with engine.connect() as connection."
        return "\n".join([*lines, advice])

    def _checked_out(self, _dbapi: Any, record: Any, fairy: Any) -> None:
        self._taken[id(record)] = _Taken(
            _name(fairy._pool),  # noqa: SLF001 - who lent it is told nowhere else
            threading.current_thread().name,
            _where(),
        )

    def _given_back(self, _dbapi: Any, record: Any) -> None:
        self._taken.pop(id(record), None)


def _name(pool: Pool) -> str:
    name = pool.name() if isinstance(pool, poolproof.Pool) else ""
    return f"{type(pool).__name__} {name}".strip()


def _where() -> str:
    """Name the line that asked, above SQLAlchemy and the pool."""
    for frame, line in traceback.walk_stack(None):
        code = frame.f_code
        if code.co_filename.startswith(("<", *_BELOW)):
            continue
        return f"{code.co_filename}:{line}, in {code.co_name}"
    return "an unknown line"

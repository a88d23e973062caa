"""What a connection leaves in the journal when it is discarded for a fault."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from poolproof._log import Log
from poolproof.drivers import backend
from poolproof.drivers.interruption import is_interruption
from poolproof.faults import journal, messages
from poolproof.faults.table import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolproof.pool.owner import Owner

__all__ = [
    "HALF",
    "LONGEST",
    "SLOW_WAIT_S",
    "STATEMENTS",
    "discarded",
    "seen",
    "waited",
]

SLOW_WAIT_S: Final = 1.0
"""A wait for a slot that is as long is noted."""

STATEMENTS: Final = 16
"""How many of a connection's last statements are remembered."""

LONGEST: Final = 512
"""Characters of a statement that are remembered: all, or its beginning and its end."""

HALF: Final = LONGEST // 2
"""So many of each."""

# Why a connection was discarded, in words. What is not here is routine: too old, idle
# for too long, given up by the application.
_CAUSES: Final = {
    "dead": "the server, or something on the way to it, had ended the connection while "
    "it was at rest",
    "desynchronised": "bytes that nobody had asked for lay unread in the socket: an "
    "answer to somebody else's question, or to one that was given up",
    "in_transaction": "it came back in the middle of a transaction or of a call",
    "no_answer": "the server did not answer the pool's question",
    "wrong_answer": "the server answered something else than the pool's question",
    "foreign": "its descriptor was closed beside its driver",
    "interrupted": "an exception interrupted the checkout or a call (a signal, a soft "
    "time limit, a killed greenlet)",
}
_FAULTS: Final = frozenset(fault.value for fault in Fault)
# What is found about one that rests; of others it is not known since when they did not.
_AT_REST: Final = frozenset({"dead", "desynchronised", "no_answer", "wrong_answer"})
_TIMEOUT: Final = "_timeout"
_TEXT_VARIABLE: Final = "POOLPROOF_JOURNAL_TEXT"
# What makes no difference between two statements: comments and literals, of which one
# may have been cut. Quoted names are matched so that they are left alone.
_APART: Final = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<name> "[^"]*(?:"|\Z) )
  | \b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)
  | '(?:[^']|'')*(?:'|\Z)
  | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)
  | \b\d[\w.]*
    """,
    re.DOTALL | re.VERBOSE,
)
_SPACE: Final = re.compile(r"\s+")
_WORD: Final = re.compile(r"[\s(]*([A-Za-z]+)")
_LONGEST_WORD: Final = 16
_told: Final[dict[str, str]] = {}
_TOLD_MOST: Final = 128
_UNREAD: Final = "_poolproof_unread"
_FOREIGN: Final = "foreign"

_log = Log("poolproof.journal")


class Discardable(Protocol):
    """What is read of an entry; `Entry` says what each of these is."""

    owner: Owner
    dbapi_connection: Any
    starttime: float
    rested_at: float
    fairy_ref: Any

    @property
    def statements(self) -> Iterable[object]:
        """The last that were sent on it."""


def waited(pool: Owner, seconds: float, *, served: bool) -> None:
    """Put a long wait for a slot, or one in vain, into the journal.

    At most one a second, so that a crowd does not drive all else out of it.

    Args:
        pool: The pool.
        seconds: For how long.
        served: Whether there was one in the end.
    """
    if served and seconds < SLOW_WAIT_S:
        return
    more = pool.waits_noted.due()
    if more is None:
        return
    journal.note(
        "slow_wait" if served else "timeout",
        f"a caller waited for a connection{'' if served else ', and got none'}{more}",
        pool=pool.name(),
        waited=seconds,
        thread=threading.current_thread().name,
    )


def seen(entry: Discardable) -> None:
    """Look at what lies unread in the socket, while it can still be looked at.

    Args:
        entry: The entry of a connection that is about to be severed.
    """
    found = messages.unread(entry.dbapi_connection)
    if found:
        setattr(entry, _UNREAD, found)


def discarded(entry: Discardable, reason: str) -> None:
    """Put a connection that is about to be closed into the journal, if for a fault.

    Args:
        entry: Its entry.
        reason: Why, as `PoolStats.discarded` counts it.

    Raises:
        Exception: What the handler of a signal has raised meanwhile.
    """
    try:
        _note(entry, reason)
    except Exception as error:
        # Whatever it is, the connection must end: who calls this sees to that.
        if is_interruption(error):
            raise
        _log.exception("A discarded connection could not be put into the journal")


def _note(entry: Discardable, reason: str) -> None:
    unread = vars(entry).pop(_UNREAD, None)
    pid = backend.pid_of(entry)
    cause = _cause(reason, pid)
    if cause is None:
        return
    # Under the number of a foreign one is another's socket, or a file.
    if unread is None and reason != _FOREIGN:
        unread = messages.unread(entry.dbapi_connection)
    now = time.monotonic()
    has_rested = reason in _AT_REST and entry.fairy_ref is None and entry.rested_at
    journal.note(
        "discard",
        cause,
        pool=entry.owner.name(),
        reason=reason,
        backend_pid=pid,
        processes=(os.getpid(),),
        age=max(0.0, time.time() - entry.starttime),
        rested=now - entry.rested_at if has_rested else None,
        unread=unread,
        # Of a copy: who was interrupted may be sending another.
        statements=tuple(map(shown, tuple(entry.statements))),
    )


def _cause(reason: str, pid: int | None) -> str | None:
    """Say why a connection is discarded; None where that is routine."""
    if reason.endswith(_TIMEOUT):
        return f"a deadline passed: {reason.removesuffix(_TIMEOUT)}"
    if reason == "error" or reason in _FAULTS:
        return journal.last_cause(pid) or f"an error ended it: {reason}"
    return _CAUSES.get(reason)


def shown(statement: object) -> str:
    """Return a statement's kind and fingerprint, or its text where that is asked for.

    Two statements that differ in literals, comments and white space alone have the same
    fingerprint.

    Args:
        statement: As it was sent, without its parameters.
    """
    text = str(statement)
    if os.environ.get(_TEXT_VARIABLE):
        return _SPACE.sub(" ", text).strip()
    plain = _SPACE.sub(" ", _APART.sub(_without, text)).strip().lower()
    word = _WORD.match(plain)
    digest = hashlib.sha256(plain.encode(errors="replace")).hexdigest()[:12]
    verb = word[1][:_LONGEST_WORD].upper() if word else "?"
    told = f"{verb} {digest}"
    # Most are the same few: each of them is in memory once.
    if len(_told) >= _TOLD_MOST:
        _told.clear()
    return _told.setdefault(told, told)


def _without(found: re.Match[str]) -> str:
    if found["name"] is not None:
        return found["name"]
    return " " if found["comment"] is not None else "?"

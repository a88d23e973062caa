"""What a failed attempt to connect says to those who did not make it.

It is remembered as a copy without its frames, and told as a copy of that, of the same
class and with the same fields, so that callers share no traceback. Its text says how
old it is.
"""

from __future__ import annotations

import copy
import re

from poolproof.errors import DeadlineExceeded
from poolproof.faults.error_info import ErrorInfo, read

__all__ = ["ConnectFailure", "times"]

# What does not mend itself: SQLSTATEs (invalid authorization, unknown database, no
# CONNECT privilege), and the server's or a pooler's words where a driver has none.
_LASTING_CODES = ("28", "3D", "42501")
_LASTING_WORDS = (
    "authentication failed for user",
    "is not permitted to log in",
    "no password supplied",
    "no pg_hba.conf entry",
    "no such database",
    "no such user",
    "permission denied for database",
)
_MISSING = re.compile(r'(?:role|database) ".*" does not exist')


class ConnectFailure:
    """The error of one attempt.

    Attributes:
        at: When the attempt ended, on the monotonic clock.
        error: A copy that keeps nothing alive; of another class where that is not
            possible.
        first_line: What it says, in one line.
        is_for_all: Whether it can be told to others: an error of a driver or of the
            system that may change. What an application's own code raises on the way to
            a connection is that caller's alone, and so is what the server says of a
            user, a password or a database, which may be that caller's own; the next one
            tries by itself.
        may_change: Whether trying again may end otherwise. An unknown database, a wrong
            password or a missing role does not mend itself.
    """

    __slots__ = ("at", "error", "first_line", "is_for_all", "may_change")

    def __init__(self, error: Exception, at: float) -> None:
        """Remember an error.

        Args:
            error: What the attempt ended with.
            at: When it ended, on the monotonic clock.
        """
        self.at = at
        self.first_line = _first_line(error)
        info = read(error)
        copied = _copy(error)
        self.may_change = not (info.dbapi and _lasts(info))
        self.is_for_all = (
            copied is not None
            and self.may_change
            and (info.dbapi or isinstance(error, OSError))
        )
        if copied is None:
            copied = ConnectionError(f"{type(error).__name__}: {self.first_line}")
        self.error: Exception = copied

    def again(self, now: float, failures: int, next_in: float) -> Exception:
        """Make the error of a caller that is told without an attempt of its own.

        Args:
            now: The time, on the monotonic clock.
            failures: Attempts that have failed in a row.
            next_in: When the next attempt is due, in seconds from now.

        Returns:
            An exception of its own.
        """
        told = _copy(self.error) or self.error
        _add(
            told,
            f"(the server was not asked again for this checkout: the last attempt "
            f"failed {max(0.0, now - self.at):.2f} s ago, connecting has failed "
            f"{times(failures)} in a row, and the next attempt is due in "
            f"{next_in:.2f} s)",
        )
        return told


def _lasts(info: ErrorInfo) -> bool:
    if info.sqlstate is not None:
        return info.sqlstate.startswith(_LASTING_CODES)
    text = info.message
    return any(words in text for words in _LASTING_WORDS) or bool(_MISSING.search(text))


def times(count: int) -> str:
    """Say how often."""
    return "once" if count == 1 else f"{count} times"


def _first_line(error: BaseException) -> str:
    text, _, _ = str(error).strip().partition("\n")
    return text or type(error).__name__


def _copy(error: Exception) -> Exception | None:
    """Copy an error, without the frames that it has come through; None if it cannot."""
    try:
        copied = copy.copy(error)
        copied.args = error.args
    except Exception:  # noqa: BLE001 - somebody's own class, with its own idea of it
        return None
    if type(copied) is not type(error) or copied is error:
        return None
    # The list would be one for all.
    getattr(copied, "__dict__", {}).pop("__notes__", None)
    if isinstance(error.__cause__, DeadlineExceeded):
        copied.__cause__ = copy.copy(error.__cause__)
    return copied


def _add(error: Exception, words: str) -> None:
    """Add a line to what an error says, where its class lets one."""
    if isinstance(error, OSError):
        if isinstance(error.strerror, str):
            error.strerror = f"{error.strerror} {words}"
        return
    args = list(error.args)
    for place, part in enumerate(args):
        if isinstance(part, str):
            args[place] = f"{part.rstrip()}\n{words}"
        elif isinstance(part, dict) and isinstance(part.get("M"), str):  # pg8000
            args[place] = {**part, "M": f"{part['M']}\n{words}"}
        else:
            continue
        error.args = tuple(args)
        return

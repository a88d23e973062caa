"""A stop flag that stands in the database, and counts when that is out of reach."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

from poolproof._log import Log
from poolproof.doctor.engines import engine_of
from poolproof.faults.table import Fault, classify
from poolproof.pool.deadlines import deadline
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Executable

__all__ = ["StopFlag", "StopRequested"]

_log = Log("poolproof.integrations")

Reason = Literal["asked", "set", "unreachable"]


class StopRequested(Exception):  # noqa: N818 - no error, but a wish that is granted
    """The work is to stop.

    Attributes:
        reason: ``"asked"``: the database said so. ``"set"``: somebody in this process
            did. ``"unreachable"``: the database could not be asked for too long.
        silent_s: For how long it could not be asked, in seconds; 0 when it could.
    """

    def __init__(self, reason: Reason, silent_s: float = 0.0) -> None:
        """Make it; the arguments are its attributes."""
        self.reason = reason
        self.silent_s = silent_s
        said = {
            "asked": "the flag in the database is set",
            "set": "this process was told to stop",
            "unreachable": (
                f"the stop flag could not be read for {silent_s:.1f} s, so nobody can "
                "stop this work any more: it stops by itself. Look at the database, or "
                "give StopFlag a larger unreachable_s"
            ),
        }
        super().__init__(said[reason])

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the attributes."""
        return type(self), (self.reason, self.silent_s)


class StopFlag:
    """A flag that work polls: is it to stop?

    In a task, or in any other work that goes on for long::

        flag = StopFlag(engine, "select stop from job where id = :id", {"id": 7})
        for part in parts:
            flag.check()
            ...

    A look at the database takes no longer than *within_s*, whatever hangs: waiting for
    a connection, connecting, the query. Between two looks the last answer counts, so
    polling in a tight loop costs nothing.

    When the database cannot be reached, the flag is what it was: work that may go on
    goes on. After *unreachable_s* of this the flag counts as set, since nobody could
    stop the work any more. Once set, a flag stays set.

    A call of the work's own that hangs keeps it from polling: bound it with
    `poolproof.deadline`.
    """

    def __init__(
        self,
        source: Any,
        question: str | Executable,
        parameters: Mapping[str, Any] | None = None,
        *,
        within_s: float = 2.0,
        every_s: float = 1.0,
        unreachable_s: float | None = 30.0,
    ) -> None:
        """Choose the question; nothing is asked yet.

        Args:
            source: An engine with `poolproof.Pool`, or a session (`scoped_session`,
                `sessionmaker`, Flask-SQLAlchemy's `db`) that has one. The flag asks
                over a connection of its own, in a transaction of its own.
            question: A query with one value: true, or a number other than 0, is stop;
                so is every text but an empty one. No row, and NULL, are not.
            parameters: Of the question.
            within_s: How long a look may take, in seconds, more than 0. Connecting with
                psycopg2 and psycopg may take 2 s for each address of the server.
            every_s: The shortest time from one look to the next, in seconds, 0 or more.
            unreachable_s: After how many seconds without an answer the flag counts as
                set, 0 or more; None is never.

        Raises:
            TypeError: The source has no engine with `poolproof.Pool`: no look could be
                bounded.
            ValueError: A number outside its range.
        """
        self._engine = engine_of(source)
        if not isinstance(self._engine.pool, Pool):
            kind = type(self._engine.pool).__name__
            msg = (
                f"StopFlag needs an engine with poolproof.Pool, not with {kind}: a "
                "look that hangs could not be ended"
            )
            raise TypeError(msg)
        _require("within_s", within_s, within_s > 0, "more than 0")
        _require("every_s", every_s, every_s >= 0, "0 or more")
        fits = unreachable_s is None or unreachable_s >= 0
        _require("unreachable_s", unreachable_s, fits, "0 or more, or None")
        self._question = text(question) if isinstance(question, str) else question
        self._parameters = dict(parameters or {})
        self._within_s = within_s
        self._every_s = every_s
        self._unreachable_s = unreachable_s
        # No lock: one that another thread has at a fork would stay locked in the child.
        # Two threads may look at the same time, which does no harm.
        self._looked_at: float | None = None
        self._silent_since: float | None = None
        self._reason: Reason | None = None

    @property
    def reason(self) -> Reason | None:
        """Why the flag is set, None while it is not. Looks at nothing."""
        return self._reason

    @property
    def silent_s(self) -> float:
        """Since when the database cannot be asked, in seconds; 0 when it can."""
        since = self._silent_since
        return 0.0 if since is None else time.monotonic() - since

    def set(self) -> None:
        """Set the flag in this process, from a thread or a signal handler."""
        self._reason = self._reason or "set"

    def is_set(self) -> bool:
        """Say whether the work is to stop; look when it is time to.

        Raises:
            Exception: The database answered with an error, such as a wrong question.
        """
        now = time.monotonic()
        due = self._looked_at is None or now - self._looked_at >= self._every_s
        if self._reason is None and due:
            self._look(now)
            # A look that took long is not followed by the next at once.
            self._looked_at = time.monotonic()
        return self._reason is not None

    def check(self) -> None:
        """Raise when the work is to stop.

        Raises:
            StopRequested: It is.
        """
        if self.is_set():
            raise StopRequested(self._reason or "set", self.silent_s)

    def _look(self, now: float) -> None:
        try:
            with deadline(self._within_s), self._engine.connect() as connection:
                answer = connection.scalar(self._question, self._parameters)
        except Exception as error:
            if classify(error).fault in {Fault.NONE, Fault.INTERRUPTED}:
                raise
            self._hear_nothing(now, error)
            return
        self._silent_since = None
        if answer:
            self._reason = self._reason or "asked"

    def _hear_nothing(self, began: float, error: Exception) -> None:
        if self._silent_since is None:
            self._silent_since = began
            _log.warning(
                "The stop flag cannot be read (%s); the last answer counts for %s",
                type(error).__name__,
                "ever"
                if self._unreachable_s is None
                else f"{self._unreachable_s:g} s from now",
            )
        if self._unreachable_s is not None and self.silent_s >= self._unreachable_s:
            self._reason = self._reason or "unreachable"


def _require(name: str, value: float | None, fits: bool, rule: str) -> None:
    if not fits:
        msg = f"{name} is {value!r}, but must be {rule} (seconds)"
        raise ValueError(msg)

"""Attempts at a transaction in a session, which may have more than one connection."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, exc
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from poolproof import commits
from poolproof.attempt import Attempt, check_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection

__all__ = ["SessionAttempt", "begin_on"]

_HAS_TRANSACTION = (
    "the session has a transaction already: a unit of work that is repeated as a whole "
    "has to begin it. End it with commit() or rollback() first"
)


class SessionAttempt(Attempt):
    """An attempt whose unit of work is given a session."""

    __slots__ = ("_given", "_isolation_level", "_session", "_stays")

    def __init__(
        self, given: Any, session: Session, isolation_level: str | None, *, stays: bool
    ) -> None:
        """Prepare it.

        Args:
            given: What the unit is called with.
            session: The session itself.
            isolation_level: For its transaction; None is the engine's.
            stays: Whether the session is somebody else's to close.
        """
        super().__init__(None)
        _watch_commits()
        self._given = given
        self._session = session
        self._isolation_level = isolation_level
        self._stays = stays

    def run(self, fn: Callable[[Any], Any], *, verify: bool) -> None:
        """Do all of it; see `Attempt.run`."""
        session = self._session
        if session.in_transaction():
            raise exc.InvalidRequestError(_HAS_TRANSACTION)
        _attempts[id(session)] = self
        try:
            transaction = session.begin()
            if self._isolation_level is not None:
                session.connection(
                    execution_options={"isolation_level": self._isolation_level}
                )
            self.stage = "unit"
            self.result = fn(self._given)
            check_end(self.result, ended=session.get_transaction() is not transaction)
            session.flush()
            self._look(verify=verify)
            self.stage = "commit"
            session.commit()
            self.stage = "done"
        except BaseException:
            for connection in _enlisted(session):
                self.look_at(connection)
            # The attempt's own error says why.
            with contextlib.suppress(Exception):
                session.rollback()
            raise
        finally:
            _attempts.pop(id(session), None)
            if not self._stays:
                session.close()

    def _look(self, *, verify: bool) -> None:
        """Look at what is to be committed."""
        connections = _enlisted(self._session)
        self.spans_several = len(connections) > 1
        if not verify or not connections:
            return
        if self.spans_several:
            msg = (
                "verify_commit needs a unit of work on one database, and this one has "
                f"used {len(connections)}"
            )
            raise exc.InvalidRequestError(msg)
        self.engine = connections[0].engine
        # A listener may write within the commit, after the number was asked.
        self.mark = commits.mark(
            connections[0], trusted=not self._session.dispatch.before_commit
        )

    def committed(self) -> None:
        """Note that the session has committed."""
        if self.stage == "commit":
            self.stage = "done"
        else:
            self.ended_itself = True


def _enlisted(session: Session) -> list[Connection]:
    """List the connections that a session's transaction has."""
    found = getattr(session.get_transaction(), "_connections", {})
    return list(dict.fromkeys(connection for connection, *_ in found.values()))


# The attempts under way, by their sessions.
_attempts: dict[int, SessionAttempt] = {}


def _after_commit(session: Session) -> None:
    attempt = _attempts.get(id(session))
    if attempt is not None and not session.in_nested_transaction():
        attempt.committed()


def _watch_commits() -> None:
    """Hear of each session's commit, and before anybody who may fail. Idempotent."""
    if not event.contains(Session, "after_commit", _after_commit):
        event.listen(Session, "after_commit", _after_commit, insert=True)


def begin_on(bind: object, isolation_level: str | None) -> Callable[[], Attempt] | None:
    """Say how an attempt is made on what makes sessions.

    Args:
        bind: What `run_transaction` was given.
        isolation_level: For the transaction; None is the engine's.

    Returns:
        A function that makes an attempt; None when *bind* makes no sessions.
    """
    if not isinstance(bind, (sessionmaker, scoped_session)):
        bind = getattr(bind, "session", None)  # Flask-SQLAlchemy
    if not isinstance(bind, (sessionmaker, scoped_session)):
        return None
    factory: Callable[[], Any] = bind
    stays = isinstance(bind, scoped_session)

    def begin() -> Attempt:
        session = factory()
        return SessionAttempt(session, session, isolation_level, stays=stays)

    return begin

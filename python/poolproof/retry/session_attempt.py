"""Attempts at a transaction in a session, which may have more than one connection."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine, NestedTransaction
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.orm.session import SessionTransactionState

from poolproof.retry.attempt import Attempt, check_begin, check_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Transaction
    from sqlalchemy.orm import SessionTransaction

__all__ = ["SessionAttempt", "begin_on"]

_HAS_TRANSACTION = (
    "the session has a transaction already: a unit of work that is repeated as a whole "
    "has to begin it. End it with commit() or rollback() first"
)
_IS_BOUND = (
    "the session is bound to a connection, whose transaction would be rolled back "
    "with each attempt: bind it to the engine, so that each attempt has a checkout of "
    "its own"
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
        _watch()
        self._given = given
        self._session = session
        self._isolation_level = isolation_level
        self._stays = stays

    def run(self, fn: Callable[[Any], Any], *, verify: bool) -> None:
        """Do all of it; see `Attempt.run`."""
        session = self._session
        if session.in_transaction():
            raise exc.InvalidRequestError(_HAS_TRANSACTION)
        if isinstance(session.bind, Connection) and not _takes_savepoint(session):
            raise exc.InvalidRequestError(_IS_BOUND)
        try:
            _attempts[id(session)] = self
            with _isolated(session, self._isolation_level):
                self._work(fn, verify=verify)
        except BaseException:
            self._take_stock()
            # The attempt's own error says why.
            with contextlib.suppress(Exception):
                session.rollback()
            raise
        finally:
            _attempts.pop(id(session), None)
            if not self._stays:
                session.close()

    def _work(self, fn: Callable[[Any], Any], *, verify: bool) -> None:
        """Begin, call the unit, and commit."""
        session = self._session
        transaction = session.begin()
        self.stage = "unit"
        self.result = fn(self._given)
        enlisted = _enlisted(session)
        ended = session.get_transaction() is not transaction
        check_end(self.result, ended=ended or any(one.is_over for one in enlisted))
        session.flush()
        self._prepare(verify=verify)
        self.stage = "commit"
        session.commit()
        self.stage = "done"

    def _prepare(self, *, verify: bool) -> None:
        """Look at what is to be committed."""
        enlisted = _enlisted(self._session)
        self.spans_several = len(enlisted) > 1
        if verify and self.spans_several:
            msg = (
                "verify_commit needs a unit of work on one database, and this one has "
                f"used {len(enlisted)}"
            )
            raise exc.InvalidRequestError(msg)
        for one in enlisted:
            self.engine = one.connection.engine
            self.ready(one.connection, verify=verify)

    def _take_stock(self) -> None:
        """Find out how far an attempt came that has failed."""
        enlisted = _enlisted(self._session)
        over = [one.is_over for one in enlisted]
        if len(enlisted) > 1:
            # A listener may have brought in another database within the commit.
            self.spans_several = True
            self.mark = None
        if self.stage == "commit" and over and all(over):
            self.stage = "done"  # whoever listens to the commit has failed
        elif any(over):
            self.ended_itself = True
        for one in enlisted:
            self.look_at(one.connection)

    def committed(self) -> None:
        """Note that the session has committed."""
        if self.stage == "commit":
            self.stage = "done"
        else:
            self.ended_itself = True


class _Enlisted(NamedTuple):
    """A connection that takes part in a session's transaction."""

    connection: Connection
    transaction: Transaction
    is_own: bool
    rolled_back: bool

    @property
    def is_over(self) -> bool:
        """Whether its transaction was ended, other than by a flush that failed."""
        if isinstance(self.transaction, NestedTransaction):
            return False
        if self.connection.closed:
            return True
        # A connection that broke keeps its transaction until it is rolled back.
        now = self.connection.get_transaction()
        return now is not self.transaction and not (self.rolled_back and now is None)


def _enlisted(session: Session) -> list[_Enlisted]:
    """List what a session's transaction has."""
    root = session.get_transaction()
    found = getattr(root, "_connections", {})
    rolled_back = getattr(root, "_state", None) is SessionTransactionState.DEACTIVE
    return [
        _Enlisted(connection, transaction, is_own, rolled_back)
        for connection, transaction, _, is_own in dict.fromkeys(found.values())
    ]


def _takes_savepoint(session: Session) -> bool:
    # So an application's tests keep what they do to themselves.
    return session.join_transaction_mode == "create_savepoint"


@contextlib.contextmanager
def _isolated(session: Session, level: str | None) -> Iterator[None]:
    """Give each transaction of a session an isolation level, on whichever engine.

    Which engines there will be shows only when the unit asks for them, and a connection
    takes no other level once its transaction has begun.
    """
    if level is None:
        yield
        return
    choose, was = session.get_bind, vars(session).get("get_bind")
    isolated: dict[Engine | Connection, Engine | Connection] = {}

    def get_bind(*arguments: Any, **keywords: Any) -> Engine | Connection:
        bind = choose(*arguments, **keywords)
        if bind not in isolated:
            isolated[bind] = bind.execution_options(isolation_level=level)
        return isolated[bind]

    vars(session)["get_bind"] = get_bind
    try:
        yield
    finally:
        del vars(session)["get_bind"]
        if was is not None:
            vars(session)["get_bind"] = was


# The attempts under way, by their sessions.
_attempts: dict[int, SessionAttempt] = {}


def _after_begin(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    """Refuse a connection whose work could not be undone by itself."""
    if id(session) not in _attempts or transaction.nested:
        return
    check_begin(connection)
    for one in _enlisted(session):
        if not one.is_own and not isinstance(one.transaction, NestedTransaction):
            raise exc.InvalidRequestError(_IS_BOUND)


def _after_commit(session: Session) -> None:
    attempt = _attempts.get(id(session))
    if attempt is not None and not session.in_nested_transaction():
        attempt.committed()


def _watch() -> None:
    """Hear of each session's begin and commit, first of all. Idempotent."""
    for name, listener in (
        ("after_begin", _after_begin),
        ("after_commit", _after_commit),
    ):
        if not event.contains(Session, name, listener):
            event.listen(Session, name, listener, insert=True)


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

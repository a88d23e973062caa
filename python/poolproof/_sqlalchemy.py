"""The private names of SQLAlchemy that the pool stands on, in one place.

SQLAlchemy has no public way to subclass its pool entry, nor to tell whether an entry's
connection was detached. These names are the same in the 2.0 and 2.1 lines; a line that
lacks one of them is refused at import, with a sentence, rather than failing in service.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import sqlalchemy

# Where 1.4 has it as well: it is refused below, in a sentence.
from sqlalchemy.engine import Engine
from sqlalchemy.event import attr
from sqlalchemy.pool import QueuePool, base

__all__ = [
    "ConnectionFairy",
    "ConnectionRecord",
    "arguments_of",
    "creator_of",
    "engine_of_pool",
    "expire",
    "hears",
    "lendable",
    "let_go_of_collection",
    "parameters_of",
    "psycopg_dialect",
    "record_of",
    "share_first_connect",
]

# What a pool has that was made; a queue's has more.
_POOLS = [
    "_creator",
    "_invalidate_time",
    "_orig_logging_name",
    "_pre_ping",
    "_recycle",
    "_reset_on_return",
]
_QUEUES = ["_max_overflow", "_pool.use_lifo"]
_NEEDED = {
    "sqlalchemy.pool.base": (
        base,
        [
            "_ConnectionFairy._checkout",
            "_ConnectionFairy._checkin",
            "_ConnectionFairy._close_special",
            "_ConnectionFairy._connection_record",
            "_ConnectionFairy._counter",
            "_ConnectionFairy._echo",
            "_ConnectionFairy._pool",
            "_ConnectionFairy._reset",
            "_ConnectionRecord._checkin_failed",
            "_ConnectionRecord._soft_invalidate_time",
            "_ConnectionRecord.checkout",
            "_ConnectionRecord.fairy_ref",
            "_ConnectionRecord.get_connection",
            "Pool._close_connection",
            "Pool._create_connection",
            "Pool._do_get",
            "Pool._dialect",
            "Pool._do_return_conn",
            "Pool._invalidate",
            "Pool._should_log_debug",
            "Pool._should_log_info",
            "Pool._should_wrap_creator",
        ],
    ),
    "sqlalchemy.event.attr": (
        attr,
        [
            "_ListenerCollection._exec_once_mutex",
            "_ListenerCollection._exec_w_sync_once",
        ],
    ),
}


OLDEST = "2.0.55"
"""Before it, and in 2.1.0 and 2.1.1, a `KeyboardInterrupt` in the rollback of a
check-in costs a slot of the pool, with `QueuePool` as well."""


def missing_names() -> list[str]:
    """Say which of the private names this SQLAlchemy does not have.

    Returns:
        Dotted names, empty when all are there.
    """
    queue = QueuePool(lambda: None)  # type: ignore[arg-type]  # never called
    wanted = [
        *(
            (f"{place}.{name}", module, name)
            for place, (module, names) in _NEEDED.items()
            for name in names
        ),
        *((f"sqlalchemy.pool.base.Pool().{name}", queue, name) for name in _POOLS),
        *((f"sqlalchemy.pool.QueuePool().{name}", queue, name) for name in _QUEUES),
    ]
    return [said for said, owner, name in wanted if not _has(owner, name)]


def _has(owner: object, name: str) -> bool:
    """Tell whether an object has an attribute, which may be one of an attribute's."""
    for part in name.split("."):
        if not hasattr(owner, part):
            return False
        owner = getattr(owner, part)
    return True


def is_before(version: str, other: str) -> bool:
    """Tell whether a version comes before another; what is no number is 0.

    Args:
        version: As in ``2.0.55`` or ``2.1.0b1``.
        other: Another.
    """
    one, two = (
        [int(part) if part.isdigit() else 0 for part in text.split(".")]
        for text in (version, other)
    )
    return one < two


def require() -> None:
    """Refuse a SQLAlchemy that the pool cannot stand on.

    Raises:
        ImportError: It is older than `OLDEST`, or a private name that the pool relies
            on is missing.
    """
    this = (
        f"poolproof works with SQLAlchemy 2.0 and 2.1; this is {sqlalchemy.__version__}"
    )
    if is_before(sqlalchemy.__version__, OLDEST):
        message = f'{this}. Install a newer one: pip install "SQLAlchemy>={OLDEST}".'
        raise ImportError(message)
    missing = missing_names()
    if missing:
        message = (
            f"{this}, which has no {', '.join(missing)}. "
            "Install a supported SQLAlchemy, or a newer poolproof."
        )
        raise ImportError(message)


def require_collectable(python: tuple[int, ...], version: str) -> None:
    """Refuse a pair that does not give back a connection collected in a circle.

    Python 3.15 clears a weak reference without a callback only after those that have
    one. SQLAlchemy 2.1 gives a collected connection back by `weakref.finalize`, which
    that broke until 2.1.7; 2.0 has a callback of its own, which it did not break.

    Args:
        python: `sys.version_info`, its first two at least.
        version: SQLAlchemy's.

    Raises:
        ImportError: It is such a pair.

    Source:
        github.com/sqlalchemy/sqlalchemy/issues/13738
    """
    is_of_line = not is_before(version, "2.1") and is_before(version, "2.2")
    if python[:2] >= (3, 15) and is_of_line and is_before(version, "2.1.7"):
        message = (
            f"poolproof needs SQLAlchemy 2.1.7 or newer on Python 3.15; this is "
            f"{version}, which does not give back a connection that is collected in a "
            'circle of references. Install it: pip install "SQLAlchemy>=2.1.7".'
        )
        raise ImportError(message)


require()
require_collectable(sys.version_info[:2], sqlalchemy.__version__)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool.base import _ConnectionFairy as ConnectionFairy
    from sqlalchemy.pool.base import _ConnectionRecord as ConnectionRecord
else:
    ConnectionFairy = base._ConnectionFairy
    ConnectionRecord = base._ConnectionRecord


def arguments_of(pool: base.Pool) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Read what an engine gives to its driver out of the function that connects.

    Args:
        pool: The engine's pool.

    Returns:
        The arguments by position and by name; None where they cannot be known: a
        creator of the application's own, or a SQLAlchemy that has changed.
    """
    creator: Any = getattr(pool, "_creator", None)
    creator = getattr(creator, "__wrapped__", creator)
    if getattr(creator, "__qualname__", "") != "create_engine.<locals>.connect":
        return None
    known = _captured(creator)
    if "cparams" not in known:
        return None
    return tuple(known.get("cargs_tup", ())), dict(known["cparams"])


def creator_of(pool: base.Pool) -> Any:
    """Return the function that opens a connection for a pool.

    Args:
        pool: Any pool.
    """
    return pool._creator


def hears(collection: Any) -> Any:
    """Return what is true while a listener hears of an event.

    As long as the pool itself has no listener, those of its class are all there are: a
    `deque`, whose truth costs less to ask for than that of SQLAlchemy's collection.

    Args:
        collection: The listeners of one event, as ``pool.dispatch`` has them. Another
            one takes its place when the pool is given its first listener.
    """
    if type(collection) is getattr(attr, "_EmptyListener", None):
        return getattr(collection, "parent_listeners", collection)
    return collection


def record_of(fairy: Any) -> Any:
    """Return the pool's entry of a connection that is out; None where it was detached.

    Args:
        fairy: What the pool has lent.
    """
    return fairy._connection_record


def parameters_of(pool: Any) -> dict[str, Any]:
    """Return what a `QueuePool` was given, by the names of its parameters.

    Args:
        pool: The pool.
    """
    return {
        "pool_size": pool.size(),
        "max_overflow": pool._max_overflow,
        "timeout": pool.timeout(),
        "use_lifo": pool._pool.use_lifo,
        "pre_ping": pool._pre_ping,
        "recycle": pool._recycle,
        "echo": pool.echo,
        "logging_name": pool._orig_logging_name,
        "reset_on_return": pool._reset_on_return,
    }


def psycopg_dialect() -> tuple[Any, Any]:
    """Return what SQLAlchemy's dialects of psycopg2 and psycopg share.

    Not before it is asked for: to import it takes time. A dialect of one's own also
    stands on `_has_native_hstore` and `_twophase_idle_check` of it.

    Returns:
        The class of dialects, and that of what executes a statement.
    """
    from sqlalchemy.dialects.postgresql import _psycopg_common  # noqa: PLC0415

    return (
        _psycopg_common._PGDialect_common_psycopg,
        _psycopg_common._PGExecutionContext_common_psycopg,
    )


def engine_of_pool(pool: base.Pool) -> Engine | None:
    """Find the engine that a pool was made for: its first connection is told to it.

    Args:
        pool: The pool.

    Returns:
        The engine; None where nothing leads to it.
    """
    for listener in list(pool.dispatch.connect):
        first = _captured(listener).get("fn", listener)
        if getattr(first, "__name__", "") == "first_connect":
            engine = _captured(first).get("engine")
            return engine if isinstance(engine, Engine) else None
    return None


# What a fairy has; from 2.1 on its finalizer too.
_FAIRYS = {
    "__dict__",
    "__weakref__",
    "_connection_record",
    "_counter",
    "_echo",
    "_pool",
    "dbapi_connection",
}
_fairy_is_known = set(base._ConnectionFairy.__slots__) - {"_finalizer"} == _FAIRYS
_new = base._ConnectionFairy.__new__


def lendable(
    kind: type[ConnectionFairy],
    pool: base.Pool,
    connection: Any,
    record: Any,
    echo: Any,
) -> Any:
    """Make what a pool lends, which does nothing by itself when it is collected.

    Args:
        kind: The class of it.
        pool: The pool.
        connection: The DBAPI connection.
        record: The pool's entry.
        echo: Whether its checkin is to be logged.

    Returns:
        A fairy as after SQLAlchemy's checkout; `_finalizer` is the caller's to set.
    """
    if not _fairy_is_known:
        fairy = kind(pool, connection, record, echo)
        let_go_of_collection(fairy)
        fairy._counter = 1
        return fairy
    # All that its `__init__` does, but for the finalizer: a third of a checkout.
    fairy = _new(kind)
    fairy._pool = pool
    fairy._counter = 1
    fairy.dbapi_connection = connection
    fairy._connection_record = record
    fairy._echo = echo
    return fairy


def let_go_of_collection(fairy: Any) -> None:
    """Have SQLAlchemy do nothing when a connection that is out is collected.

    Args:
        fairy: What the pool has lent. Before 2.1 the record's own reference to it does
            that, and is replaced.
    """
    finalizer = getattr(fairy, "_finalizer", None)
    if finalizer is not None:
        finalizer.detach()


def share_first_connect(pool: base.Pool, make: Callable[[], Any]) -> None:
    """Choose the mutex under which a pool's first connect runs.

    Args:
        pool: The pool.
        make: Makes the mutex.
    """
    listeners: Any = pool.dispatch.connect.for_modify(pool.dispatch)
    if not isinstance(getattr(listeners, "_exec_once_mutex", None), type(make())):
        listeners._exec_once_mutex = make()


def expire(pool: base.Pool) -> None:
    """Have every connection that a pool has opened until now replaced at its next use.

    Args:
        pool: Any pool.
    """
    pool._invalidate(None)  # type: ignore[arg-type]  # of no connection


def _captured(function: Any) -> dict[str, Any]:
    """Return what a function has from the one around it; nothing of another thing."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found = {}
    cells = getattr(function, "__closure__", None) or ()
    for name, cell in zip(names, cells, strict=False):
        with contextlib.suppress(ValueError):  # it has no value yet
            found[name] = cell.cell_contents
    return found

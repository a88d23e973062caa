"""Where it comes from: the files of the processes, and ``pg_stat_activity``."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING, Any, Final

from poolproof.doctor.deployment import Deployment
from poolproof.doctor.errors import DoctorError
from poolproof.doctor.refusal import explained
from poolproof.doctor.run import meet_server
from poolproof.doctor.target import read
from poolproof.metrics import files
from poolproof.watch.facts import HeldConnection, PoolLine, Server, Session, View
from poolproof.watch.words import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["ORDERS", "WatchedServer", "look", "processes"]

# Of this database's clients; what a role may not see is NULL. The watcher leaves itself
# out.
_SESSIONS: Final = """
select pid, application_name, state, wait_event_type, wait_event,
       extract(epoch from clock_timestamp() - state_change)::float8,
       extract(epoch from clock_timestamp() - xact_start)::float8,
       left(ltrim(query), 40)
from pg_catalog.pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
  and (backend_type = 'client backend' or backend_type is null)
order by pid
limit 2000
"""
_MOST: Final = "select current_setting('max_connections')::int"
_ANSWER_S: Final = 2.0
_WORD: Final = re.compile(r"[A-Za-z]+")
_IN_TRANSACTION: Final = ("idle in transaction", "idle in transaction (aborted)")
_STRANGER_S: Final = 1.0
_METRICS: Final = frozenset(
    {
        "checkouts_total",
        "connections",
        "connections_max",
        "discarded_total",
        "faults_total",
        "generation",
        "oldest_wait_seconds",
        "timeouts_total",
        "waiting",
    }
)

ORDERS: Final[dict[str, tuple[str, Callable[[HeldConnection], Any]]]] = {
    "h": ("held", lambda one: -one.held_s),
    "p": ("process", lambda one: (one.process_id, -one.held_s)),
    "s": ("scope", lambda one: (one.scope or "", -one.held_s)),
    "t": ("thread", lambda one: (one.thread, -one.held_s)),
    "i": ("idle first", lambda one: (one.is_busy is not False, -one.held_s)),
}
"""In which order holders are shown: by key, its name and what is compared."""


class WatchedServer:
    """The server's sessions, asked again and again over one session of its own.

    Args:
        url: The database.

    Raises:
        DoctorError: It is no URL that can be asked, or the server does not answer. The
            message holds no secret.
    """

    def __init__(self, url: str) -> None:
        self._subject = read(url, Deployment())
        meet_server(self._subject)

    def server(self) -> Server:
        """Ask for all sessions; connect anew where that is needed."""
        shown = self._subject.shown
        try:
            if self._subject.connection is None:
                meet_server(self._subject)
            connection = self._subject.connection
            assert connection is not None  # noqa: S101 - for the type checker
            ((most,),) = connection.rows(_MOST, _ANSWER_S)
            rows = connection.rows(_SESSIONS, _ANSWER_S)
        except DoctorError as error:
            self.close()
            return Server(shown=shown, trouble=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
            self.close()
            return Server(shown=shown, trouble=explained(self._subject, error))
        return Server(shown=shown, most=most, sessions=tuple(map(_session, rows)))

    def close(self) -> None:
        """End the session."""
        connection, self._subject.connection = self._subject.connection, None
        if connection is not None:
            connection.close()


def _session(row: tuple[Any, ...]) -> Session:
    pid, application, state, kind, event, since_s, transaction_s, query = row
    word = _WORD.match(query or "")
    waits = f"{kind}: {event}" if kind and kind != "Client" else None
    return Session(
        backend_pid=pid,
        application=plain(application or ""),
        state=None if state is None else plain(state),
        waits_for=None if waits is None else plain(waits),
        since_s=since_s,
        transaction_s=transaction_s,
        verb=word[0].upper() if word else None,
    )


def look(
    directory: Path | None, activity: WatchedServer | None, order: str = "h"
) -> View:
    """Look at everything once.

    Args:
        directory: Where processes keep what they say, or None.
        activity: The server, or None.
        order: One of `ORDERS`.
    """
    pools, holders = ([], []) if directory is None else processes(directory)
    server = None if activity is None else activity.server()
    sessions = () if server is None else server.sessions
    by_pid = {session.backend_pid: session for session in sessions}
    joined = [
        dataclasses.replace(one, session=by_pid.get(one.backend_pid or 0))
        for one in holders
    ]
    ours = {one.backend_pid for one in holders}
    strangers = [
        session
        for session in sessions
        if session.backend_pid not in ours
        and session.state in _IN_TRANSACTION
        and (session.transaction_s or 0.0) >= _STRANGER_S
    ]
    strangers.sort(key=lambda one: -(one.transaction_s or 0.0))
    return View(
        directory=None if directory is None else plain(directory),
        pools=tuple(sorted(pools, key=lambda one: (one.process_id, one.pool))),
        holders=tuple(sorted(joined, key=ORDERS[order][1])),
        server=server,
        strangers=tuple(strangers),
    )


def processes(directory: Path) -> tuple[list[PoolLine], list[HeldConnection]]:
    """Read what the processes that live say.

    Args:
        directory: Where they keep it.
    """
    pools: list[PoolLine] = []
    holders: list[HeldConnection] = []
    for body in files.live(directory, _METRICS):
        try:
            lines, held = _process(body)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            continue  # of another version, or not of the pool at all
        pools += lines
        holders += held
    return pools, holders


def _process(body: dict[str, Any]) -> tuple[list[PoolLine], list[HeldConnection]]:
    process_id = int(body["pid"])
    behind_s = _seconds(body["behind_s"])
    lines = [
        dataclasses.replace(line, behind_s=behind_s, is_main=bool(body.get("is_main")))
        for line in _lines(process_id, body["samples"])
    ]
    # What was held when it was written is held for longer by now, as far as is known.
    return lines, [
        HeldConnection(
            process_id=process_id,
            pool=plain(pool),
            thread=plain(thread),
            scope=None if scope is None else plain(scope),
            backend_pid=None if backend_pid is None else int(backend_pid),
            held_s=_seconds(held_s) + behind_s,
            is_busy=None if is_busy is None else bool(is_busy),
        )
        for pool, thread, scope, backend_pid, held_s, is_busy in body["holders"]
    ]


def _seconds(found: Any) -> float:
    """Return a length of time.

    Raises:
        TypeError, ValueError: It is none.
    """
    if not 0 <= found < math.inf:
        raise ValueError(f"no length of time: {found}")
    return float(found)


def _lines(process_id: int, samples: dict[str, Any]) -> Iterable[PoolLine]:
    forks = int(sum(samples.get("generation", {}).values()))
    names = dict.fromkeys(labels[0] for labels in samples.get("connections", {}))
    for name in names:
        of = _of_pool(samples, name)
        yield PoolLine(
            process_id=process_id,
            pool=plain(name),
            idle=of("connections", "idle"),
            used=of("connections", "used"),
            most=_whole(samples.get("connections_max", {}).get((name,))),
            waiting=of("waiting"),
            oldest_wait_s=_seconds(
                samples.get("oldest_wait_seconds", {}).get((name,), 0.0)
            ),
            checkouts=of("checkouts_total"),
            timeouts=of("timeouts_total"),
            faults=_costly(samples, name),
            discarded=of("discarded_total"),
            forks=forks,
        )


def _whole(found: Any) -> int | None:
    return None if found is None else int(found)


def _of_pool(samples: dict[str, Any], name: str) -> Callable[..., int]:
    """Return a function that adds up a metric of one pool."""

    def total(metric: str, *labels: str) -> int:
        wanted = (name, *labels)
        found = samples.get(metric, {}).items()
        return int(sum(value for at, value in found if at[: len(wanted)] == wanted))

    return total


def _costly(samples: dict[str, Any], name: str) -> int:
    """Count a pool's faults that cost something."""
    found = samples.get("faults_total", {}).items()
    return sum(
        int(count)
        for (pool, _fault, cost), count in found
        if pool == name and cost != "nothing"
    )

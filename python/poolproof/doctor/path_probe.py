"""Finding out what stands between an application and its server, once for all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from poolproof.doctor.connection import ReadOnlyConnection
from poolproof.doctor.parameters import Parameters
from poolproof.doctor.path_facts import PathFacts
from poolproof.doctor.refusal import one_line

if TYPE_CHECKING:
    from poolproof.doctor.subject import Subject

__all__ = ["lends_sessions", "path_of", "version_of"]

# PgBouncer reports itself since 1.26, by these names.
_REPORTED: Final = ("pgbouncer.version",)
_REPORTED_MODE: Final = ("pgbouncer.pool_mode",)
# Where a pooler usually listens, and how services name theirs.
_PORTS: Final = {6432: "PgBouncer's", 6543: "Supavisor's transaction mode"}
_NAMES: Final = re.compile(r"-pooler\.|pooler\.|pgbouncer", re.IGNORECASE)
_ROUNDS: Final = 3
_PROBE_S: Final = 0.6
_CONNECT_S: Final = 1.0
_CONSOLE_S: Final = 0.5


def path_of(subject: Subject) -> PathFacts:
    """Find out what stands in between, the first time; return the same later.

    Args:
        subject: One whose server was met.

    Raises:
        Exception: Whatever the driver raises.
    """
    if subject.path is None:
        facts = _compare(subject)
        subject.path = facts
        if facts.is_pooled:
            _ask_console(subject, facts)
            _find_mode(subject, facts)
    return subject.path


def lends_sessions(subject: Subject) -> bool:
    """Tell whether the backend is another than the driver was told: a pooler's.

    Args:
        subject: One whose server was met. Nothing is asked.
    """
    connection, server = subject.connection, subject.server
    if connection is None or server is None:
        return False
    told = connection.told_pid()
    return told is not None and str(told) != server.facts["backend_pid"]


def version_of(text: str) -> tuple[int, ...]:
    """Read a version out of a text such as ``PgBouncer 1.18.0``.

    Args:
        text: The text.

    Returns:
        Its numbers; empty where there are none.
    """
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _compare(subject: Subject) -> PathFacts:
    """Compare what the driver was told with what the server says."""
    connection, server = subject.connection, subject.server
    assert connection is not None  # noqa: S101 - the check needs one
    assert server is not None  # noqa: S101 - likewise
    told, real = connection.told_pid(), int(server.facts["backend_pid"])
    facts = PathFacts(evidence=[f"backend {real}; the driver was told {told}"])
    facts.is_pooled = lends_sessions(subject)
    for name in _REPORTED:
        if version := connection.reported(name):
            facts.is_pooled, facts.version = True, version
            facts.evidence.append(f"reported: {name} = {version}")
    for name in _REPORTED_MODE:
        if facts.is_pooled and (mode := connection.reported(name)):
            facts.mode = mode
            facts.evidence.append(f"reported: {name} = {mode}")
    ends = connection.ends()
    own, peer = (None, None) if ends is None else (ends[0][1], ends[1])
    seen = server.facts.get("client_port", "")
    if own is not None:
        seen_ = seen if seen and seen != "-1" else "a unix socket"
        facts.evidence.append(f"our port {own}; the server sees {seen_}")
        facts.is_proxied = facts.is_pooled or str(own) != seen
    elif seen:
        facts.is_proxied = seen != "-1"
        facts.evidence.append(f"our unix socket; the server sees {seen}")
    if peer is not None and (where := _PORTS.get(peer[1])):
        facts.hints.append(f"port {peer[1]} is usually {where}")
    for host, _port in Parameters(subject.engine).hosts():
        if _NAMES.search(host):
            facts.hints.append(f"the host is called {host}")
    return facts


def _ask_console(subject: Subject, facts: PathFacts) -> None:
    """Ask PgBouncer itself, where it lets us."""
    parameters = Parameters(subject.engine)
    if not parameters.is_known:
        facts.no_console = "the engine has a creator of its own"
        return
    console = ReadOnlyConnection(
        subject.engine,
        lambda: parameters.connect_to("pgbouncer"),
        commits_itself=True,
        patience=subject.patience,
    )
    try:
        console.open(_CONNECT_S)
        facts.version = str(console.rows("SHOW VERSION", _CONSOLE_S)[0][0])
        facts.evidence.append(f"its console: {facts.version}")
        rows = console.rows("SHOW CONFIG", _CONSOLE_S)
        facts.config = {str(row[0]): str(row[1]) for row in rows}
        name = subject.engine.url.database or subject.engine.url.username
        for one in console.table("SHOW DATABASES", _CONSOLE_S):
            if one.get("name") == name:
                facts.database = one
        if facts.config:
            own = facts.database.get("pool_mode", "")
            facts.mode = own if own not in ("", "None") else facts.config["pool_mode"]
            facts.evidence.append(f"its console: pool_mode = {facts.mode}")
    except Exception as error:  # noqa: BLE001 - of a driver, of any class
        facts.no_console = one_line(subject.redact(str(error))) or type(error).__name__
    finally:
        console.close()


def _find_mode(subject: Subject, facts: PathFacts) -> None:
    """Find out by trying: in transaction mode a client's backend changes."""
    connection = subject.connection
    if facts.mode or connection is None:
        return
    if connection.without_transactions:
        facts.mode = "statement"
        facts.evidence.append("a transaction of several statements is refused")
        return
    clients = [
        ReadOnlyConnection(subject.engine, patience=subject.patience) for _ in range(3)
    ]
    try:
        for one in clients:
            one.open(_CONNECT_S)
        pair = _change(*clients)
    except Exception as error:  # noqa: BLE001 - of a driver, of any class
        facts.mode_unknown = (
            "three clients at once had no answer in time: its pool may be smaller "
            f"({type(error).__name__})"
        )
    else:
        facts.mode = "transaction" if pair else "session"
        facts.mode_is_certain = pair is not None
        facts.evidence.append(
            f"one client had backend {pair[0]}, then {pair[1]}, without asking"
            if pair
            else f"one client kept its backend over {_ROUNDS} rounds"
        )
    finally:
        for one in clients:
            one.close()


def _change(
    asking: ReadOnlyConnection, *holding: ReadOnlyConnection
) -> tuple[int, int] | None:
    """Have one client ask for its backend before and while others hold some.

    Read-only, and nothing of a session is changed.

    Returns:
        Its two backends, where they differ.
    """
    backend = "select pg_backend_pid()"
    for _ in range(_ROUNDS):
        [[before]] = asking.rows(backend, _PROBE_S)
        for one in holding:
            one.begin(backend, _PROBE_S)
        [[after]] = asking.rows(backend, _PROBE_S)
        for one in holding:
            one.end()
        if before != after:
            return before, after
    return None

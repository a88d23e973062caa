"""4xx: who holds what now, on this machine and on the server."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from poolproof.doctor.finding import fine, found, skipped
from poolproof.doctor.holders import Holding, holders, is_seen, not_seen
from poolproof.doctor.local_sockets import LocalSockets, is_address_here, name_of
from poolproof.doctor.path_probe import lends_sessions
from poolproof.doctor.timeouts import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolproof.doctor.finding import Finding
    from poolproof.doctor.server_facts import Activity, ServerFacts
    from poolproof.doctor.subject import Subject

_LEASES = """
select name, coalesce(host, ''), coalesce(pid, 0)::text,
       extract(epoch from expires_at - clock_timestamp())::text,
       extract(epoch from expires_at - renewed_at)::text
  from poolproof_lease where token is not null
"""
_LATE = 1 / 3
_MOST = 5
_OTHER_USERS = (
    "nobody was seen, but the metrics of {} processes are another user's: ask as the "
    "user that runs the application"
)
_NO_PROC = "this system has no /proc to see the sockets of its processes in"


def shared_backends(subject: Subject) -> Finding:
    """PP401: has one connection several processes."""
    connection = subject.connection
    assert connection is not None  # noqa: S101 - the check needs one
    peer = connection.peer()
    if peer is None:
        return skipped("over a unix socket its ends cannot be told: ask over TCP")
    try:
        sockets = LocalSockets()
    except OSError:
        return skipped(_NO_PROC)
    there = sockets.to(*peer)
    backends = _backends(subject)
    shared = {port: owners for port, owners in there.items() if len(owners) > 1}
    seen = f"{len(there)} connections of this machine to {peer[0]}:{peer[1]}"
    if sockets.unreadable:
        seen += f"; {sockets.unreadable} processes are other users', and not seen"
    if not shared:
        if sockets.unreadable and not any(there.values()):
            return skipped(f"{seen}: ask as the user that runs the application")
        return fine(f"no connection has two processes: {seen}")
    lines = []
    for port, owners in list(shared.items())[:_MOST]:
        backend = backends.get(port)
        what = f"backend {backend}" if backend else f"our port {port}"
        lines.append(f"{what}: {', '.join(map(name_of, owners))}")
    count = len(shared)
    return found(
        "error",
        f"{count} connection{'s have' if count > 1 else ' has'} several processes: "
        f"{lines[0]}. What one asks, another reads",
        "poolclass=poolproof.Pool, which makes inherited sockets dead; until then "
        "restart these processes",
        evidence=[*lines, seen],
        confidence="likely",
    )


def _backends(subject: Subject) -> dict[int, int]:
    """Return the backends of clients by the clients' ports, where they are shown."""
    server = subject.server
    if server is None or lends_sessions(subject):
        return {}
    return {one.port: one.pid for one in server.activity if one.port > 0}


def held_and_idle(subject: Subject, server: ServerFacts) -> Finding:
    """PP402: who holds a connection and asks nothing."""
    limit = subject.deployment.held_s
    if server.activity_error and not is_seen(subject):
        return skipped(f"pg_stat_activity cannot be read: {server.activity_error}")
    idle = sorted(
        (
            one
            for one in server.activity
            if one.is_ours
            and one.state.startswith("idle in transaction")
            and one.for_s > limit
        ),
        key=lambda one: -one.for_s,
    )
    known = {one.pid for one in idle}
    here = [
        one for one in holders(subject) if one.is_busy is False and one.held_s > limit
    ]
    scopes = {one.backend: one for one in here}
    if not idle and not here and (hidden := not_seen()):
        return skipped(_OTHER_USERS.format(hidden))
    if not idle and not here:
        return fine(f"nobody holds a connection idle for more than {seconds(limit)}")
    alone = [one for one in here if one.backend not in known]
    said = [(one.for_s, _said(one, scopes.get(one.pid))) for one in idle]
    said += [
        (one.held_s, f"{one}, held for {seconds(one.held_s)}, and idle now")
        for one in alone
    ]
    said.sort(key=lambda one: -one[0])
    lines = [line for _for_s, line in said[: 2 * _MOST]]
    many = "connection is" if len(said) == 1 else "connections are"
    first = "" if len(said) == 1 else "the longest: "
    return found(
        "warning",
        f"{len(said)} {many} held by somebody who asks nothing of it for more than "
        f"{seconds(limit)}; {first}{lines[0]}",
        "end the transaction before waiting for something else; hold_timeout bounds it",
        evidence=[*lines, *_by_application(idle)],
    )


def _said(one: Activity, holder: Holding | None) -> str:
    name = one.application or "no application_name"
    who = f" ({holder})" if holder else ""
    return f"{name}: backend {one.pid}, {one.state} for {seconds(one.for_s)}{who}"


def _by_application(idle: list[Activity]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for one in idle:
        counts[one.application] = counts.get(one.application, 0) + 1
    if len(counts) > 1:
        for name, count in sorted(counts.items(), key=lambda pair: -pair[1])[:_MOST]:
            yield f"{name or 'no application_name'}: {count}"


def orphans(subject: Subject, server: ServerFacts) -> Finding:
    """PP403: are there backends whose client has gone."""
    if server.activity_error:
        return skipped(f"pg_stat_activity cannot be read: {server.activity_error}")
    port = int(server.facts.get("server_port") or 0)
    here = [
        one
        for one in server.activity
        if one.port > 0 and one.is_ours and is_address_here(one.address)
    ]
    if not port:
        return skipped("over a unix socket its ends cannot be told: ask over TCP")
    try:
        sockets = LocalSockets()
    except OSError:
        return skipped(_NO_PROC)
    gone = [one for one in here if not sockets.has_connection(one.port, port)]
    # A session that ended while we looked is no orphan: it is not there any more.
    gone = [one for one in gone if one.pid in _still_there(subject, gone)]
    if not gone:
        return fine(f"each of {len(here)} sessions from this machine has its process")
    lines = [
        f"backend {one.pid}, {one.state or 'hidden'} for {seconds(one.for_s)}, from "
        f"{one.address}:{one.port}"
        for one in gone
    ]
    return found(
        "warning",
        f"{len(gone)} backend{'s' * (len(gone) > 1)} of this machine's clients "
        f"live{'s' * (len(gone) == 1)} on, and the client is gone: {lines[0]}",
        "select pg_terminate_backend(...) once; end_stranded_backends=True for ever",
        evidence=lines[:_MOST],
        confidence="likely",
    )


def _still_there(subject: Subject, gone: list[Activity]) -> set[int]:
    connection = subject.connection
    if not gone or connection is None or not connection.is_open:
        return set()
    numbers = ", ".join(str(one.pid) for one in gone)
    rows = connection.rows(
        f"select pid::text from pg_catalog.pg_stat_activity where pid in ({numbers})"  # noqa: S608 - numbers
    )
    return {int(row[0]) for row in rows}


def leases(subject: Subject, server: ServerFacts) -> Finding:
    """PP404: are leases near their end, or is their holder gone."""
    connection = subject.connection
    if "lease_table" not in server.facts or connection is None:
        return fine("there is no table poolproof_lease")
    late: list[str] = []
    gone: list[str] = []
    rows: list[tuple[Any, ...]] = connection.rows(_LEASES)
    for name, host, pid, left_text, ttl_text in rows:
        left, ttl = float(left_text), float(ttl_text)
        if left <= 0:
            late.append(f"{name}: expired {seconds(-left)} ago, and not given back")
        elif left < ttl * _LATE:
            late.append(f"{name}: {seconds(left)} left of {seconds(ttl)}")
        if left > 0 and host == socket.gethostname() and not _lives(int(pid)):
            gone.append(f"{name}: its holder, process {pid} of this machine, is gone")
    if not late and not gone:
        return fine(f"{len(rows)} leases are held, none near its end")
    return found(
        "warning",
        f"{len(late) + len(gone)} of {len(rows)} leases: {(gone + late)[0]}",
        "look at the holder: it does not renew; poolproof lease release frees it",
        evidence=[*gone, *late][: 2 * _MOST],
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def double_holders(subject: Subject) -> Finding:
    """PP405: does one caller hold several connections."""
    if not is_seen(subject):
        return skipped(
            "who holds connections is known of a poolproof.Pool alone: name "
            "MODULE:ENGINE, or set POOLPROOF_METRICS_DIR as the application has it"
        )
    by_thread: dict[tuple[int, str], list[Holding]] = {}
    for one in holders(subject):
        by_thread.setdefault((one.process, one.thread), []).append(one)
    double = [held for held in by_thread.values() if len(held) > 1]
    if not double and (hidden := not_seen()):
        return skipped(_OTHER_USERS.format(hidden))
    if not double:
        return fine(f"none of {len(by_thread)} callers holds two connections")
    lines = [
        f"{held[0]}: {len(held)} connections, the first for {seconds(held[0].held_s)}"
        for held in double
    ]
    return found(
        "warning",
        f"{lines[0]}: when all callers do so, each waits for the others",
        "one connection a caller; nested_timeout makes such a wait end",
        evidence=lines[:_MOST],
        confidence="likely",
    )

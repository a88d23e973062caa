"""1xx: what the server allows, and when it ends a session by itself."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from sqlalchemy.pool import QueuePool

from poolproof.doctor.finding import fine, found, skipped
from poolproof.doctor.path_probe import lends_sessions
from poolproof.doctor.pool_capacity import capacity_of
from poolproof.doctor.timeouts import seconds, seconds_of
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from poolproof.doctor.finding import Confidence, Finding
    from poolproof.doctor.server_facts import Activity, ServerFacts
    from poolproof.doctor.subject import Subject

_WITHOUT_RESERVED: Final = "max_connections without the reserved ones"
_HAS_TRANSACTION_TIMEOUT: Final = 17
_HAS_IDLE_SESSION_TIMEOUT: Final = 14
_KEEP_ALIVE_MOST_S: Final = 600
# Of the project's own page of versions: the last day of each.
_LAST_DAYS: Final = {
    10: dt.date(2022, 11, 10),
    11: dt.date(2023, 11, 9),
    12: dt.date(2024, 11, 21),
    13: dt.date(2025, 11, 13),
    14: dt.date(2026, 11, 12),
    15: dt.date(2027, 11, 11),
    16: dt.date(2028, 11, 9),
    17: dt.date(2029, 11, 8),
    18: dt.date(2030, 11, 14),
}


def slots(subject: Subject, server: ServerFacts) -> Finding:
    """PP101: do all connections that may be opened fit."""
    if lends_sessions(subject):
        return skipped("a pooler stands in between: PP205 looks at its limits")
    capacity = capacity_of(subject)
    room, has, into, shared = _room(server)
    others = _by_others(server)
    evidence = [*_slot_evidence(server), *others]
    wanted = capacity.together(subject.deployment)
    if wanted == float("inf"):
        return found(
            "error",
            f"{capacity.unbounded_by} sets no bound, and {has}",
            "give max_overflow a bound",
            evidence=evidence,
        )
    sum_ = f"{_processes(subject)} × {capacity.most:g} ({capacity.parts}) = "
    if capacity.is_bound_by_host(subject.deployment):
        machines = subject.deployment.fleet
        sum_ = f"{machines} machine{'s' * (machines != 1)} × "
        sum_ += f"{capacity.host:g} (host_budget) = "
    sum_ += f"{wanted:g} connections"
    confidence: Confidence = "likely" if capacity.is_assumed else "certain"
    if wanted > room:
        return found(
            "error",
            f"{sum_}, but {has}: some requests will be refused under load",
            "lower the pools, or put a pooler in between",
            evidence=evidence,
            confidence=confidence,
        )
    taken = sum(
        _shares(one, shared) and _is_of_others(subject, one) for one in server.activity
    )
    if wanted > room - taken:
        return found(
            "warning",
            f"{sum_} fit only without the {taken} that others have now, for {has}",
            "lower the pools, or find out what the others are",
            evidence=evidence,
            confidence="likely",
        )
    return fine(f"{sum_} fit into {into}", evidence=evidence)


def _processes(subject: Subject) -> str:
    deployment = subject.deployment
    workers = deployment.workers or 1
    text = f"{workers} worker{'s' * (workers != 1)}"
    return text if deployment.fleet == 1 else f"{deployment.fleet} machines × {text}"


def _room(server: ServerFacts) -> tuple[int, str, str, str]:
    """Return how many sessions the role may have here, what says so, and who shares."""
    reserved = server.number("superuser_reserved_connections") or 0
    reserved += server.number("reserved_connections") or 0
    slots_ = (server.number("max_connections") or 0) - reserved
    words = f"{slots_} slots ({_WITHOUT_RESERVED})"
    rooms = [(slots_, f"the server has {words}", f"the server's {words}", "all")]
    limits = [(server.database_limit, f"the database {server.database}", "database")]
    if not server.is_superuser:  # whom no limit of a role binds
        limits.append((server.role_limit, f"the role {server.role}", "role"))
    for limit, what, shared in limits:
        if limit >= 0:
            words = f"{limit} connections (its CONNECTION LIMIT)"
            rooms.append(
                (limit, f"{what} may have {words}", f"{what}'s {words}", shared)
            )
    return min(rooms)


def _shares(session: Activity, shared: str) -> bool:
    """Tell whether a session takes of the same room."""
    return (
        shared == "all"
        or (shared == "role" and session.is_ours)
        or (shared == "database" and session.is_here)
    )


def _slot_evidence(server: ServerFacts) -> list[str]:
    names = (
        "max_connections",
        "superuser_reserved_connections",
        "reserved_connections",
    )
    lines = [
        f"{name} = {server.settings[name]}" for name in names if name in server.settings
    ]
    for limit, what in (
        (server.role_limit, f"role {server.role}"),
        (server.database_limit, f"database {server.database}"),
    ):
        lines.append(f"{what}: CONNECTION LIMIT {'none' if limit < 0 else limit}")
    return lines


def _by_others(server: ServerFacts) -> list[str]:
    if server.activity_error:
        return ["sessions in use are not known: pg_stat_activity cannot be read"]
    counts: dict[str, int] = {}
    for one in server.activity:
        name = one.application or "(no application_name)"
        counts[name] = counts.get(name, 0) + 1
    most = sorted(counts.items(), key=lambda pair: -pair[1])[:5]
    words = ", ".join(f"{name} {count}" for name, count in most) or "none"
    return [f"sessions now, by application: {words}"]


def _is_of_others(subject: Subject, session: Activity) -> bool:
    """Tell whether a session is of another application, by its name if there is one."""
    own = str(subject.engine.url.query.get("application_name", ""))
    if own:
        return not session.application.startswith(own)
    return not (session.is_ours and session.is_here)


def idle_session(subject: Subject, server: ServerFacts) -> Finding:
    """PP102: does the server end sessions that rest in the pool."""
    if server.version < _HAS_IDLE_SESSION_TIMEOUT:
        return fine(f"PostgreSQL {server.version} has no idle_session_timeout")
    limit = seconds_of(server, "idle_session_timeout")
    if not limit:
        return fine("idle_session_timeout is off")
    evidence = [f"idle_session_timeout = {seconds(limit)} ({_source(server)})"]
    settings = subject.settings
    if isinstance(subject.pool, Pool):
        rests = settings.max_idle
        if rests is not None and rests < limit and not settings.min_idle:
            return fine(f"max_idle {seconds(rests)} is below {seconds(limit)}")
        evidence.append(f"max_idle = {rests}, min_idle = {settings.min_idle}")
        return found(
            "note",
            f"the server ends what has rested for {seconds(limit)}; the pool sees that "
            "at the next checkout, and has to connect anew then",
            f"set max_idle below {limit:g}, and min_idle to 0",
            evidence=evidence,
        )
    if not subject.is_application or not isinstance(subject.pool, QueuePool):
        return found(
            "note",
            f"the server ends a session that has rested for {seconds(limit)}",
            f"let the pool keep connections for less than {limit:g} s "
            "(pool_recycle does not: it counts from the connecting)",
            evidence=evidence,
        )
    return found(
        "warning",
        f"the server ends what has rested for {seconds(limit)}; QueuePool does not see "
        "that, and the next request fails with 57P05",
        "poolclass=poolproof.Pool, which looks at each checkout; or pool_pre_ping=True",
        evidence=evidence,
    )


def _source(server: ServerFacts) -> str:
    return f"set in: {server.sources.get('idle_session_timeout', 'unknown')}"


def idle_in_transaction(subject: Subject, server: ServerFacts) -> Finding:
    """PP103: does anything end a transaction in which nothing happens."""
    limit = seconds_of(server, "idle_in_transaction_session_timeout")
    hold = getattr(subject.settings, "hold_timeout", None)
    if not limit and hold is None:
        return found(
            "note",
            "nothing ends a transaction in which nothing happens: a caller that hangs "
            "keeps its connection and its locks",
            "set idle_in_transaction_session_timeout for the role, or hold_timeout of "
            "the pool",
            evidence=["idle_in_transaction_session_timeout = 0"],
        )
    if limit and hold is not None and limit < hold:
        return found(
            "note",
            f"the server ends an idle transaction after {seconds(limit)}, before "
            f"hold_timeout ({seconds(hold)}) does",
            "make hold_timeout the shorter one: its error names who held it",
            evidence=[f"hold_timeout = {hold:g}"],
        )
    ends = [f"the server after {seconds(limit)}"] if limit else []
    ends += [f"hold_timeout after {seconds(hold)}"] if hold is not None else []
    return fine(f"an idle transaction is ended: {', '.join(ends)}")


def transaction_time(subject: Subject, server: ServerFacts) -> Finding:
    """PP104: does the server end transactions that are meant to last."""
    if server.version < _HAS_TRANSACTION_TIMEOUT:
        return fine(f"PostgreSQL {server.version} has no transaction_timeout")
    limit = seconds_of(server, "transaction_timeout")
    if not limit:
        return fine("transaction_timeout is off")
    allowed = {
        "the request's time-out": subject.deployment.timeout_s,
        "hold_timeout": getattr(subject.settings, "hold_timeout", None),
    }
    longer = {what: own for what, own in allowed.items() if own and own > limit}
    if not longer:
        return fine(f"transactions may last {seconds(limit)}")
    words = ", ".join(f"{what} ({seconds(own)})" for what, own in longer.items())
    return found(
        "warning",
        f"the server ends a transaction after {seconds(limit)}, before {words}",
        "raise transaction_timeout above it, or lower the other",
        evidence=[f"transaction_timeout = {seconds(limit)}"],
    )


def statement_time(subject: Subject, server: ServerFacts) -> Finding:
    """PP105: does anything end a statement that hangs."""
    limit = seconds_of(server, "statement_timeout")
    request = subject.deployment.timeout_s
    hold = getattr(subject.settings, "hold_timeout", None)
    if limit and request and limit > request:
        return found(
            "warning",
            f"a request is ended after {seconds(request)}, and its statement may run "
            f"for {seconds(limit)}: it goes on in the server, with its locks",
            f"set statement_timeout below {request:g} s, or end_stranded_backends=True",
            evidence=[f"statement_timeout = {seconds(limit)}"],
        )
    if limit:
        return fine(f"a statement is ended after {seconds(limit)}")
    if hold is not None:
        return fine(f"a statement is ended by hold_timeout after {seconds(hold)}")
    driver = subject.engine.dialect.driver
    evidence = ["statement_timeout = 0", f"driver: {driver}"]
    if request and driver == "psycopg2":
        return found(
            "warning",
            f"nothing ends a statement, and the time-out of {seconds(request)} does "
            "not reach a thread inside psycopg2: a signal's handler runs when the call "
            "is over",
            "set statement_timeout for the role below it, or hold_timeout of the pool",
            evidence=evidence,
        )
    return found(
        "note",
        "nothing ends a statement that hangs on a lock or in a plan",
        "alter role ... set statement_timeout = '30s'",
        evidence=evidence,
    )


def connection_check(subject: Subject, server: ServerFacts) -> Finding:
    """PP106: does the server see that its client has gone."""
    interval = server.number("client_connection_check_interval")
    if interval is None:
        return fine(f"PostgreSQL {server.version} cannot look after its client")
    if interval:
        return fine(f"a running statement looks after its client each {interval} ms")
    if getattr(subject.settings, "end_stranded_backends", False):
        return fine("the pool ends what its connections leave behind")
    return found(
        "note",
        "a backend whose client was killed runs its statement to the end, and keeps "
        "its locks until then",
        "end_stranded_backends=True of the pool, or "
        "client_connection_check_interval = '5s' on the server",
        evidence=["client_connection_check_interval = 0"],
    )


def may_write(_subject: Subject, server: ServerFacts) -> Finding:
    """PP108: is it a server that takes writes."""
    if server.facts.get("in_recovery") == "true":
        return found(
            "warning",
            "the server is a standby: every write fails with 25006",
            "connect to the primary; of several hosts, target_session_attrs=read-write",
            evidence=["pg_is_in_recovery() = true"],
        )
    if server.settings.get("default_transaction_read_only") == "on":
        where = server.sources.get("default_transaction_read_only", "unknown")
        return found(
            "warning",
            "transactions are read-only by default: every write fails with 25006",
            "alter role ... reset default_transaction_read_only, if it is to write",
            evidence=[f"default_transaction_read_only = on, set in: {where}"],
        )
    return fine("the server takes writes")


def version(subject: Subject, server: ServerFacts) -> Finding:
    """PP109: is the server's version still mended."""
    name = server.settings.get("server_version", str(server.version))
    last = _LAST_DAYS.get(server.version)
    if last is None and server.version > max(_LAST_DAYS):
        return fine(f"PostgreSQL {name}")
    if last is None or last < subject.today:
        return found(
            "warning",
            f"PostgreSQL {name} is not mended any more"
            + (f", since {last:%d %B %Y}" if last else ""),
            "plan the move to a version that is",
            evidence=[f"server_version = {name}"],
        )
    return fine(f"PostgreSQL {name} is mended until {last:%B %Y}")


def hidden_sessions(_subject: Subject, server: ServerFacts) -> Finding:
    """PP110: what pg_stat_activity hides."""
    grant = f"grant pg_read_all_stats to {server.role}"
    if server.activity_error:
        return skipped(
            f"pg_stat_activity cannot be read ({server.activity_error}): {grant}, and "
            "grant select on pg_stat_activity"
        )
    hidden = sum(one.is_hidden for one in server.activity)
    if hidden:
        return found(
            "note",
            f"{hidden} of {len(server.activity)} other sessions show the role "
            f"{server.role} no more than that they are there",
            grant,
            evidence=["what 4xx says is about the others alone"],
        )
    return fine(f"all of {len(server.activity)} other sessions can be seen")


def server_keep_alives(_subject: Subject, server: ServerFacts) -> Finding:
    """PP107: does the server see that a client's machine has gone."""
    if not server.facts.get("client_address"):
        return fine("a unix socket: its other end is never silently gone")
    idle = server.number("tcp_keepalives_idle") or 0
    interval = server.number("tcp_keepalives_interval") or 0
    count = server.number("tcp_keepalives_count") or 0
    whole = idle + interval * count
    if idle and whole <= _KEEP_ALIVE_MOST_S:
        return fine(f"the server gives a silent client up after {seconds(whole)}")
    length = f"after {seconds(whole)}" if idle else "never"
    return found(
        "note",
        "the server sees that a client's machine or network has gone without a word "
        f"{length}: its slot and its locks are taken until then",
        "tcp_keepalives_idle = 60, tcp_keepalives_interval = 10, tcp_keepalives_count "
        "= 6 on the server",
        evidence=[
            f"tcp_keepalives_idle = {idle}, _interval = {interval}, _count = {count}"
        ],
    )

"""2xx: what stands between an application and its server, and what it costs."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.pool import QueuePool

from poolproof.doctor import advisories
from poolproof.doctor.connection import ReadOnlyConnection
from poolproof.doctor.finding import fine, found, skipped
from poolproof.doctor.parameters import Parameters
from poolproof.doctor.path_probe import path_of, version_of
from poolproof.doctor.pool_capacity import capacity_of
from poolproof.doctor.timeouts import seconds
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolproof.doctor.finding import Confidence, Finding
    from poolproof.doctor.path_facts import PathFacts
    from poolproof.doctor.subject import Subject

_PINGS: Final = 200
_PING_S: Final = 0.6
_FAR_S: Final = 0.010
_CONNECTS: Final = 3
_DEAR_S: Final = 0.2
_PREPARED_SINCE: Final = (1, 21, 0)
# What a system's own bound on connecting is, where nothing else is.
_SYSTEM_S: Final = 130.0
_OF_DRIVER_S: Final = {"asyncpg": 60.0}
_DIRECT: Final = "nothing that lends sessions was seen in between"


def pooler(subject: Subject) -> Finding:
    """PP201: does a pooler or proxy stand in between."""
    facts = path_of(subject)
    if facts.is_pooled:
        what = facts.version if "ouncer" in facts.version else "a pooler"
        if facts.version and what == "a pooler":
            what = f"PgBouncer {facts.version}"
        mode = f", pool mode {facts.mode}" if facts.mode else ""
        return found(
            "note",
            f"{what} stands in between{mode}: the server's sessions are not the pool's",
            "see PP202 for what does not hold through it, and PP205 for the sizes",
            evidence=[*facts.evidence, *facts.hints],
        )
    if facts.is_proxied:
        return found(
            "note",
            "something passes the bytes on: the server sees another end than ours",
            "find out its idle time-out, and keep max_idle or keep_alive below it",
            evidence=[*facts.evidence, *facts.hints],
            confidence="likely",
        )
    if facts.hints:
        return found(
            "note",
            "the address hints at a pooler, but nothing of one was seen",
            "find out whether there is one",
            evidence=[*facts.evidence, *facts.hints],
            confidence="possible",
        )
    return fine(
        "the server sees our own end of the connection", evidence=facts.evidence
    )


def session_features(subject: Subject) -> Iterator[Finding]:
    """PP202: what of a session does not hold through the pooler."""
    facts = path_of(subject)
    if not facts.is_pooled:
        yield fine(_DIRECT)
        return
    if not facts.mode:
        yield skipped(f"the pooler's mode is not known: {facts.mode_unknown}")
        return
    if facts.mode == "session":
        sure = "" if facts.mode_is_certain else ", as far as was seen"
        yield fine(f"the pooler keeps a session for a client{sure}")
        return
    evidence = [*facts.evidence]
    uses = list(advisories.session_words(subject.sources))
    severity: Any = "error" if uses else "warning"
    first = uses[0] if uses else None
    evidence += [f"{use.file}:{use.line}: {use.word}" for use in uses[:5]]
    yield found(
        severity,
        f"in {facts.mode} mode a session is another client's a moment later: advisory "
        "locks have two holders and stay behind, LISTEN hears nothing, SET and "
        "temporary tables reach others",
        "pg_advisory_xact_lock, SET LOCAL, a poolproof.Lease; LISTEN over a connection "
        "past the pooler",
        evidence=evidence,
        file=first.file if first else "",
        line=first.line if first else 0,
        confidence="certain" if facts.mode_is_certain else "likely",
    )
    yield from _prepared(subject, facts)


def _prepared(subject: Subject, facts: PathFacts) -> Iterator[Finding]:
    """Say whether the driver's prepared statements get through."""
    parameters = Parameters(subject.engine)
    names = {"psycopg": "prepare_threshold", "asyncpg": "statement_cache_size"}
    name = names.get(parameters.driver)
    if name is None or not parameters.is_known:
        return
    never = None if name == "prepare_threshold" else 0
    value = parameters.get(name)
    if parameters.has(name) and value == never:
        return
    version = version_of(facts.version)
    allowed = facts.config.get("max_prepared_statements", "")
    if version >= _PREPARED_SINCE and allowed not in ("", "0"):
        return
    confidence: Confidence = "certain" if version else "possible"
    why = f"PgBouncer {'.'.join(map(str, version))}" if version else "it"
    yield found(
        "error" if version else "warning",
        f"{parameters.driver} prepares statements, and {why} in {facts.mode} mode "
        "gives them to other clients: 26000, 42P05, and wrong rows",
        f"connect_args={{'{name}': {never}}}, or "
        "PgBouncer 1.21 with max_prepared_statements above 0",
        evidence=[f"{name} = {value if value is not None else 'its default'}"],
        confidence=confidence,
    )


def pooler_time(subject: Subject) -> Finding:
    """PP203: does the pooler end what rests or waits in the pool."""
    facts = path_of(subject)
    if not facts.is_pooled:
        return fine(_DIRECT)
    if not facts.config:
        return skipped(_closed_console(facts, subject))
    idle = float(facts.config.get("client_idle_timeout", 0))
    wait = float(facts.config.get("query_wait_timeout", 0))
    evidence = [f"client_idle_timeout = {idle:g}", f"query_wait_timeout = {wait:g}"]
    settings = subject.settings
    rests = getattr(settings, "max_idle", None)
    if idle and not (rests is not None and rests < idle and not settings.min_idle):
        looks = isinstance(subject.pool, Pool)
        unlooked = subject.is_application and isinstance(subject.pool, QueuePool)
        return found(
            "warning" if unlooked else "note",
            f"the pooler ends a client that has rested for {seconds(idle)}"
            + ("; the pool sees that at the next checkout" if looks else ""),
            f"max_idle below {idle:g} on a poolproof.Pool, or client_idle_timeout = 0",
            evidence=evidence,
        )
    request = subject.deployment.timeout_s
    if request and (not wait or wait > request):
        return found(
            "note",
            "a query may wait in the pooler for "
            f"{seconds(wait) if wait else 'ever'}, longer than a request may last "
            f"({seconds(request)})",
            f"query_wait_timeout below {request:g}: its error says that it is full",
            evidence=evidence,
        )
    return fine("the pooler's time-outs do not cut what rests", evidence=evidence)


def _closed_console(facts: PathFacts, subject: Subject) -> str:
    user = subject.engine.url.username or "the user"
    return (
        f"PgBouncer's console lets nobody in ({facts.no_console}): "
        f"stats_users = {user} in its configuration lets this be seen"
    )


def pooler_version(subject: Subject) -> Finding:
    """PP204: has the pooler known holes."""
    facts = path_of(subject)
    if not facts.is_pooled:
        return fine(_DIRECT)
    version = version_of(facts.version)
    if not version:
        return skipped(_closed_console(facts, subject))
    holes = advisories.of_pgbouncer(version)
    name = ".".join(map(str, version))
    if not holes:
        return fine(f"no advisory is known for PgBouncer {name}")
    return found(
        "warning",
        f"PgBouncer {name} has {len(holes)} known hole{'s' * (len(holes) != 1)}: "
        + ", ".join(hole.name for hole in holes),
        f"PgBouncer {advisories.MENDED} or newer",
        evidence=[f"{hole.name}: {hole.what}" for hole in holes],
        confidence="likely",
    )


def pools_in_series(subject: Subject) -> Finding:
    """PP205: does the pooler let in what the pools may open."""
    facts = path_of(subject)
    if not facts.is_pooled:
        return fine(_DIRECT)
    if not facts.config:
        return skipped(_closed_console(facts, subject))
    capacity = capacity_of(subject)
    wanted = capacity.together(subject.deployment)
    clients = int(facts.config.get("max_client_conn", 0))
    size = int(facts.database.get("pool_size") or facts.config["default_pool_size"])
    evidence = [
        f"max_client_conn = {clients}",
        f"pool_size of the database = {size}",
        f"{subject.deployment.processes} × {capacity.most:g} ({capacity.parts})",
    ]
    sure: Confidence = "likely" if capacity.is_assumed else "certain"
    if wanted > clients:
        return found(
            "error",
            f"the pools may open {wanted:g} connections, and the pooler lets {clients} "
            "clients in: some requests will be refused under load",
            "raise max_client_conn, or lower the pools",
            evidence=evidence,
            confidence=sure,
        )
    if facts.mode == "session" and wanted > size:
        return found(
            "error",
            f"the pools may open {wanted:g} connections, and in session mode each "
            f"keeps one of {size} server sessions: the others wait for ever",
            "pool_mode = transaction, or pools that together keep fewer than pool_size",
            evidence=evidence,
            confidence=sure,
        )
    return fine(
        f"{wanted:g} connections share {size} server sessions", evidence=evidence
    )


def latency(subject: Subject) -> Finding:
    """PP206: what a question costs, and a connection."""
    connection = subject.connection
    assert connection is not None  # noqa: S101 - the check needs one
    until = time.monotonic() + 2 * _PING_S * subject.patience
    pings = sorted(connection.ping(_PINGS, _PING_S))
    connects = [connection.opened_in_s]
    while len(connects) < _CONNECTS and (left := until - time.monotonic()) > 0:
        another = ReadOnlyConnection(subject.engine, patience=subject.patience)
        try:
            another.open(left + _PING_S)
            connects.append(another.opened_in_s)
        finally:
            another.close()
    p50, p95, p99 = (_rank(pings, share) for share in (0.50, 0.95, 0.99))
    dear = min(connects)
    said = (
        f"ping p50 {seconds(p50)}, p95 {seconds(p95)}, p99 {seconds(p99)} of "
        f"{len(pings)}; a fresh connection {seconds(dear)}"
    )
    if p50 > _FAR_S:
        return found(
            "note",
            f"{said}: each statement of a request waits for the way",
            "fewer statements a request, pipelines, or a server that is nearer",
            evidence=[f"a request of 20 statements waits {seconds(20 * p50)}"],
        )
    if dear > _DEAR_S:
        return found(
            "note",
            f"{said}: connecting is dear",
            "keep connections: pool_size for the usual load, min_idle above 0",
        )
    return fine(said)


def _rank(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def addresses(subject: Subject) -> Finding:
    """PP208: how long connecting may take when no address answers."""
    parameters = Parameters(subject.engine)
    if not parameters.is_known:
        return skipped("the engine has a creator of its own: its hosts are not known")
    found_ = {
        where for host, port in parameters.hosts() for where in _resolved(host, port)
    }
    count = max(1, len(found_))
    name = (
        "timeout" if parameters.driver in ("pg8000", "asyncpg") else "connect_timeout"
    )
    given = parameters.get(name)
    each = float(given or _OF_DRIVER_S.get(parameters.driver, _SYSTEM_S))
    whole = each * count
    evidence = [
        f"{count} address{'es' * (count != 1)}",
        f"{name} = {given or f'unset: given up after about {seconds(each)}'}",
    ]
    if isinstance(subject.pool, Pool):
        return fine("the pool bounds connecting as a whole", evidence=evidence)
    request = subject.deployment.timeout_s
    bound = request or 30.0
    if whole <= bound:
        return fine(f"connecting takes {seconds(whole)} at most", evidence=evidence)
    return found(
        "warning" if count > 1 or request else "note",
        f"connecting may take {seconds(whole)}: {seconds(each)} for each of {count}",
        f"connect_args={{'{name}': {max(2, int(bound / count / 3))}}}, or "
        "poolproof.Pool, which bounds it as a whole",
        evidence=evidence,
    )


def _resolved(host: str, port: int) -> list[Any]:
    if not host or host.startswith("/"):
        return [host]
    return [
        place[4][0] for place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ]


def replicas(subject: Subject) -> Finding:
    """PP209: may a connection lead to a replica."""
    parameters = Parameters(subject.engine)
    if not parameters.is_known:
        return skipped("the engine has a creator of its own: its hosts are not known")
    hosts = parameters.hosts()
    wanted = parameters.get("target_session_attrs")
    if len(hosts) < 2:  # noqa: PLR2004
        return fine("one host is named")
    if wanted in ("read-write", "primary"):
        return fine(f"of {len(hosts)} hosts the one that takes writes is chosen")
    names = ", ".join(f"{host}:{port}" for host, port in hosts)
    return found(
        "warning",
        f"of {len(hosts)} hosts the first that answers is taken, a replica too",
        "target_session_attrs=read-write; for reading, an engine of its own with "
        "prefer-standby",
        evidence=[f"hosts: {names}", f"target_session_attrs = {wanted or 'any'}"],
    )

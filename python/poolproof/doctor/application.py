"""3xx: how an application uses its engine, and what a fork does to it."""

from __future__ import annotations

import dis
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import exc
from sqlalchemy.pool import (
    AssertionPool,
    NullPool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
)

from poolproof._sqlalchemy import parameters_of
from poolproof.doctor import sources
from poolproof.doctor.finding import fine, found, skipped
from poolproof.doctor.pool_capacity import capacity_of
from poolproof.doctor.timeouts import seconds
from poolproof.drivers.server_params import known_creator
from poolproof.pool.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    from poolproof.doctor.finding import Confidence, Finding, Severity
    from poolproof.doctor.subject import Subject

_OURS: Final = "poolclass=poolproof.Pool"


def forks(subject: Subject) -> bool:
    """Tell whether the application is loaded before its processes are forked.

    Args:
        subject: The application.
    """
    deployment = subject.deployment
    return deployment.preload or deployment.worker_class == "prefork"


def pool_class(subject: Subject) -> Finding:
    """PP301: which pool, and what it does under forks and threads."""
    pool = subject.pool
    name = f"{type(pool).__module__}.{type(pool).__qualname__}"
    evidence = [name, pool.status()]
    threads = subject.deployment.threads or 1
    if isinstance(pool, Pool):
        return fine(f"poolproof.Pool, called {pool.name()}")
    if isinstance(pool, (StaticPool, AssertionPool)) and threads > 1:
        return found(
            "error",
            f"{type(pool).__name__} has one connection for {threads} threads: their "
            "answers mix, or they fail",
            _OURS,
            evidence=evidence,
        )
    if isinstance(pool, (NullPool, SingletonThreadPool)):
        return found(
            "note",
            f"{type(pool).__name__} keeps no connection for others, and sets no bound "
            "on how many there are",
            f"{_OURS}, unless a pooler on this machine keeps them",
            evidence=evidence,
        )
    severity: Severity = "warning" if forks(subject) else "note"
    return found(
        severity,
        f"{type(pool).__name__}: what a child inherits of its connections it shares "
        "with its parent, and their answers mix",
        _OURS,
        evidence=evidence,
    )


def connected_before_fork(subject: Subject) -> Finding:
    """PP302: did importing the application open connections."""
    opened = []
    for engine in subject.taken().engines_to(subject.engine):
        pool: Any = engine.pool
        if not hasattr(pool, "checkedin"):
            continue
        idle, out = pool.checkedin(), pool.checkedout()
        if idle + out > 0:
            opened.append((engine, idle, out))
    if not opened:
        return fine("importing it opens no connection")
    idle = sum(one[1] for one in opened)
    out = sum(one[2] for one in opened)
    ours = all(isinstance(one[0].pool, Pool) for one in opened)
    summary = f"importing it opens connections: {idle} at rest, {out} held"
    evidence = [one[0].pool.status() for one in opened]
    if ours:
        return found(
            "note",
            f"{summary}; poolproof.Pool makes them dead in a child",
            "open none at import: a child connects anew anyway",
            evidence=evidence,
        )
    return found(
        "error" if forks(subject) else "warning",
        f"{summary}; forked after that (preload, prefork), two processes drive one "
        "backend",
        f"{_OURS}, or no query at import",
        evidence=evidence,
    )


def disposals(subject: Subject) -> Finding:
    """PP303: does a fork hook close the parent's connections."""
    places = list(sources.disposals(subject.sources))
    closing = [place for place in places if not place.spares]
    if not closing:
        sparing = f"; {len(places)} with close=False" if places else ""
        return fine(f"no hook of a fork disposes of an engine{sparing}")
    first = closing[0]
    if isinstance(subject.pool, Pool):
        return found(
            "note",
            f"{first.words} in {first.inside} is of no use: the child's pool is empty",
            "take it out",
            evidence=map(str, closing),
            confidence="likely",
            file=first.file,
            line=first.line,
        )
    return found(
        "error",
        f"{first.words} in {first.inside} says goodbye on the parent's sockets: its "
        "connections at rest die, and what it has checked out loses its rows",
        f"{_OURS}, and no dispose; else dispose(close=False), which spares those at "
        "rest alone",
        evidence=map(str, closing),
        confidence="likely",
        file=first.file,
        line=first.line,
    )


def handlers(subject: Subject) -> Finding:
    """PP304: is there a handler of errors that does nothing."""
    listeners = [
        one
        for one in subject.engine.dialect.dispatch.handle_error
        if not str(getattr(one, "__module__", "")).startswith("poolproof.")
    ]
    idle = [one for one in listeners if _does_nothing(one)]
    if not idle:
        return fine(f"{len(listeners)} handlers of errors beside the pool's own")
    code = _code_of(idle[0])
    names = ", ".join(getattr(one, "__qualname__", repr(one)) for one in idle)
    return found(
        "note" if isinstance(subject.pool, Pool) else "warning",
        f"{names} sets invalidate_pool_on_disconnect alone: that is read only where "
        "is_disconnect is true, so it does nothing",
        f"poolproof.guard(engine), or {_OURS}, which know what each error means",
        evidence=[f"{len(listeners)} handlers of errors"],
        file=code.co_filename if code else "",
        line=code.co_firstlineno if code else 0,
    )


def _code_of(function: Any) -> CodeType | None:
    function = getattr(function, "__func__", function)
    return getattr(function, "__code__", None)


def _does_nothing(function: Any) -> bool:
    code = _code_of(function)
    if code is None:
        return False
    stored = {
        one.argval
        for part in _codes(code)
        for one in dis.get_instructions(part)
        if one.opname == "STORE_ATTR"
    }
    return "invalidate_pool_on_disconnect" in stored and "is_disconnect" not in stored


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from _codes(constant)


def threads_and_slots(subject: Subject) -> Finding:
    """PP306: do a process's threads and its pool fit together."""
    threads = subject.deployment.threads
    if threads is None:
        return skipped("--threads says how many there are")
    pool = subject.pool
    if not isinstance(pool, (Pool, QueuePool)):
        return fine(f"{type(pool).__name__} gives each thread its own")
    most = capacity_of(subject).most
    if threads > most:
        return found(
            "warning",
            f"{threads} threads share {most:g} connections: {threads - most:g} of them "
            "wait when all are busy",
            f"pool_size + max_overflow of {threads}, or fewer threads",
        )
    size = pool.size()
    if most > threads:
        overflow = max(0, threads - size)
        cure = f"pool_size={threads}, " if size > threads else ""
        return found(
            "note",
            f"pool_size + max_overflow is {most:g}, and {threads} threads never use "
            f"more than {threads} at once, one each",
            f"{cure}max_overflow={overflow}: PP101 counts what may be opened",
            confidence="likely",
        )
    return fine(f"{threads} threads, {most:g} connections at most")


def time_outs(subject: Subject) -> Finding:
    """PP307: does a time-out come before the one that would say why."""
    request = subject.deployment.timeout_s
    if request is None:
        return skipped("--timeout says when a request or a task is ended")
    pool = subject.pool
    if isinstance(pool, Pool):
        wait = pool.settings.whole_checkout(pool.timeout())
        name = "a whole checkout (checkout_timeout)"
    elif isinstance(pool, QueuePool):
        wait, name = parameters_of(pool)["timeout"], "pool_timeout"
    else:
        return fine(f"{type(pool).__name__} waits for nobody")
    if wait is None or wait >= request:
        length = "has no bound" if wait is None else f"is {seconds(wait)}"
        return found(
            "warning",
            f"{name} {length}, and a request is ended after {seconds(request)}: it "
            "dies before the pool can say who holds the connections",
            f"pool_timeout below {request:g}: a third of it, say",
        )
    hold = getattr(subject.settings, "hold_timeout", None)
    if hold is not None and hold >= request:
        return found(
            "note",
            f"hold_timeout is {seconds(hold)}, and a request is ended after "
            f"{seconds(request)}: it never comes to that",
            f"hold_timeout below {request:g}",
        )
    return fine(f"{name} is {seconds(wait)}, a request {seconds(request)}")


def engines(subject: Subject) -> Finding:
    """PP308: is an engine made for each request or task."""
    there = subject.taken().engines_to(subject.engine)
    places = list(sources.engines_in_jobs(subject.sources))
    if places:
        first = places[0]
        return found(
            "error",
            f"{first.words} in {first.inside}: an engine, and so a pool, for each "
            "call; its connections stay until it is collected",
            "one engine a process, made where the module is imported",
            evidence=map(str, places),
            confidence="likely",
            file=first.file,
            line=first.line,
        )
    if len(there) > 1:
        return found(
            "warning",
            f"{len(there)} engines of this process lead to the same database, each "
            "with a pool of its own",
            "one engine a process: they share nothing, not even their bounds",
            evidence=[one.pool.status() for one in there],
        )
    return fine("one engine leads to this database")


def loops(subject: Subject) -> Finding:
    """PP309: is one async engine used in several loops."""
    engine = subject.engine
    if not engine.dialect.is_async:
        return fine("the engine is a sync one")
    pool: Any = engine.pool
    if isinstance(pool, NullPool):
        return fine("NullPool keeps nothing that belongs to a loop")
    if pool.checkedin() + pool.checkedout() > 0:
        return found(
            "error",
            "connections are there whose loop has ended: the next use fails with "
            "'attached to a different loop' or 'Event loop is closed'",
            "await engine.dispose() before a loop ends, or poolclass=NullPool",
            evidence=[pool.status()],
        )
    runs = list(sources.asyncio_runs(subject.sources))
    if runs:
        first = runs[0]
        sure: Confidence = "likely" if len(runs) > 1 else "possible"
        return found(
            "warning",
            f"asyncio.run in {first.inside} has a loop of its own each time, and the "
            "engine keeps connections of the last one",
            "poolclass=NullPool for these, or one loop that lives as long as the "
            "engine",
            evidence=map(str, runs),
            confidence=sure,
            file=first.file,
            line=first.line,
        )
    return fine("nothing is left of another loop")


def control_credentials(subject: Subject) -> Finding:
    """PP312: can leases log in when credentials change."""
    held = subject.taken().leases
    settings = subject.settings
    uses = bool(held) or getattr(settings, "end_stranded_backends", False)
    dsn = getattr(settings, "control_dsn", None)
    made = list(subject.engine.dialect.dispatch.do_connect)
    evidence = [f"{len(held)} leases", f"{len(made)} listeners of do_connect"]
    if dsn is None:
        try:
            known_creator(subject.pool, subject.engine.dialect)
        except exc.ArgumentError as error:
            if not uses:
                return fine("nothing uses the control plane, which could not log in")
            return found(
                "warning",
                "leases and end_stranded_backends cannot log in: the engine has a "
                "creator of its own",
                "control_dsn= with a URL, or a function that returns one",
                evidence=[*evidence, str(error)],
            )
        return fine("the control plane logs in as the engine does", evidence=evidence)
    if isinstance(dsn, str) and made:
        return found(
            "warning",
            "the engine's credentials are made at each connecting (do_connect), and "
            "control_dsn is a text: when they change, leases are lost",
            "control_dsn= a function that returns the URL",
            evidence=evidence,
        )
    return fine("the control plane has credentials of its own", evidence=evidence)


def host_budget(subject: Subject) -> Finding:
    """PP314: does everybody get something of the host's budget."""
    pools = [pool for pool in subject.pools if isinstance(pool, Pool) and pool.budget]
    if not pools:
        return fine("no pool has a host_budget")
    budget: Any = pools[0].budget
    workers = subject.deployment.workers or 1
    parts = budget.parts()
    waiting = sum(parts.waiting.values())
    evidence = [
        f"host_budget {budget.name!r} is {budget.most}; its file is {budget.path}",
        *(f"process {pid or 'elsewhere'} holds {n}" for pid, n in parts.held.items()),
        *(f"{n} callers of process {pid} wait" for pid, n in parts.waiting.items()),
    ]
    kept = workers * sum(
        pool.settings.min_idle for pool in pools if pool.budget is budget
    )
    if workers > budget.most or kept >= budget.most > 1:
        return found(
            "error",
            f"{workers} workers keep {kept} connections ready, and host_budget "
            f"{budget.name!r} lets all have {budget.most}: some may get none",
            "a smaller min_idle, fewer workers, or a larger host_budget",
            evidence=evidence,
        )
    if waiting:
        return found(
            "warning",
            f"{waiting} caller{'s wait' if waiting > 1 else ' waits'} for one of the "
            f"{budget.most} connections of host_budget {budget.name!r} now",
            "hold connections for shorter, or raise the budget and max_connections",
            evidence=evidence,
        )
    used = sum(parts.held.values())
    return fine(f"{used} of {budget.most} connections are held", evidence=evidence)

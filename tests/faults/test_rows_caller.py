"""Rows about interruptions of the caller, in the middle of a call."""

from __future__ import annotations

import asyncio
import functools
import signal
import subprocess
import sys

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import poolproof
from plugins.harm import driver_connections, first_error, struck
from plugins.rows import decided_by, row
from plugins.server import unavailable
from plugins.threads import eventually
from poolproof import Fault

SELECT = sa.text("select 42")
SLEEP = sa.text("select pg_sleep(1)")


@pytest.fixture
def amid(observer):
    """Return a function that says what an action raises amid which a signal comes."""
    return functools.partial(struck, observer)


def celerys_handler():
    try:
        from billiard.pool import soft_timeout_sighandler
    except ImportError:
        unavailable("no Celery: install it")
    return soft_timeout_sighandler


class Stop(BaseException):
    """Somebody's own way to interrupt."""


def stop(*_):
    raise Stop


HANDLERS = {
    "celery": celerys_handler,
    "keyboard": lambda: signal.default_int_handler,
    "exit": lambda: lambda *_: sys.exit(1),
    "own": lambda: stop,
}
KINDS = [
    ("celery", row("billiard.exceptions.SoftTimeLimitExceeded")),
    ("keyboard", row("builtins.KeyboardInterrupt")),
    ("exit", row("builtins.SystemExit")),
    ("own", row("no `Exception`, also where the driver hides it")),
]


@pytest.mark.parametrize("pool", [sa.QueuePool, poolproof.Pool], ids=["queue", "ours"])
@pytest.mark.parametrize(("kind", "expected"), KINDS)
def test_an_interruption_costs_the_one_connection(
    make_engine, driver, events, amid, kind, expected, pool
):
    engine = make_engine(driver, pool_size=2, poolclass=pool)
    poolproof.guard(engine)
    before = driver_connections(engine, 2)
    with engine.connect() as connection:
        struck = connection.connection.driver_connection
        error = amid(HANDLERS[kind](), lambda: connection.execute(SLEEP))
    assert decided_by(error, driver=driver) == expected
    (event,) = events
    assert (event.fault, event.verdict.cost) == (Fault.INTERRUPTED, "connection")
    assert (event.verdict.retry, event.verdict.outcome) == ("never", "unknown")
    after = driver_connections(engine, 2)
    assert struck not in after
    assert len({id(one) for one in before} & {id(one) for one in after}) == 1


def test_a_soft_time_limit_that_the_driver_hides_is_one(make_engine, amid, events):
    """Psycopg ends a batch in its own words, when it is left in the middle."""
    engine = make_engine("psycopg", poolclass=poolproof.Pool)
    statement = sa.text("select cast(:n as integer), pg_sleep(0.5)")
    with engine.connect() as connection:
        error = amid(
            celerys_handler(),
            lambda: connection.execute(statement, [{"n": 1}, {"n": 2}]),
        )
    assert isinstance(error, sa.exc.OperationalError)
    assert decided_by(error) == row("billiard.exceptions.SoftTimeLimitExceeded")
    assert [one.fault for one in events] == [Fault.INTERRUPTED]
    assert poolproof.classify(error).fault is Fault.INTERRUPTED


def test_an_error_after_a_handled_soft_time_limit_is_not_one(make_engine, events):
    engine = make_engine("psycopg", poolclass=poolproof.Pool)
    handler = celerys_handler()
    try:
        handler(signal.SIGALRM, None)
    except Exception:
        with engine.connect() as connection:
            error = first_error(lambda: connection.execute(sa.text("selec")))
    assert type(error.orig.__context__).__name__ == "SoftTimeLimitExceeded"
    assert events == []
    assert poolproof.classify(error).fault is Fault.NONE


@pytest.mark.parametrize("pool", [sa.QueuePool, poolproof.Pool], ids=["queue", "ours"])
def test_an_error_that_leaves_the_driver_amid_a_command_is_an_interruption(
    make_engine, amid, events, pool
):
    """Of a class that nobody knows: the driver's status tells."""
    engine = make_engine("psycopg", pool_size=1, poolclass=pool)
    poolproof.guard(engine)

    def handler(*_):
        raise LookupError("mine")

    with engine.connect() as connection:  # whose end raises nothing of its own
        error = amid(handler, lambda: connection.execute(SLEEP))
    assert isinstance(error, LookupError)
    assert decided_by(error, busy=True) == row("in the middle of a command")
    (event,) = events
    assert (event.fault, event.verdict.cost) == (Fault.INTERRUPTED, "connection")


@pytest.fixture
def interrupt(watched, amid):
    """Return a function that interrupts a statement of a new engine.

    It returns the way up to the server, and how many bytes had passed there then.
    """

    def interrupt_it(engine):
        with engine.connect() as connection:
            connection.execute(SELECT)
            (link,) = watched.links
            sent = []

            def handler(*_):
                sent.append(link._up.bytes_total)
                raise Stop

            amid(handler, lambda: connection.execute(SLEEP))
        return link._up, *sent

    return interrupt_it


def test_after_an_interruption_nothing_is_sent(make_engine, driver, watched, interrupt):
    """Neither a rollback nor a goodbye: the socket is dead before SQLAlchemy closes."""
    engine = make_engine(driver, watched, poolclass=poolproof.Pool, pool_size=1)
    way_up, sent = interrupt(engine)
    way_up.join(20)
    assert not way_up.is_alive()
    assert way_up.bytes_total == sent
    assert engine.pool.stats().discarded == {"interrupted": 1}


def test_on_a_pool_that_is_not_ours_the_driver_says_goodbye(
    make_engine, watched, driver, interrupt
):
    """So the test above would fail if the guard did not sever."""
    engine = make_engine(driver, watched, pool_size=1)
    poolproof.guard(engine)
    way_up, sent = interrupt(engine)
    eventually(lambda: way_up.bytes_total > sent, what="a goodbye")


COOPERATIVE = """
import sys
{patch}
import sqlalchemy as sa, poolproof
sys.path.insert(0, sys.argv[2])
from plugins.rows import decided_by
events = []
poolproof.on_fault(events.append)
engine = sa.create_engine(sys.argv[1], poolclass=poolproof.Pool, pool_size=1)
def work():
    with engine.connect() as connection:
        connection.execute(sa.text("select pg_sleep(8)"))
engine.connect().close()  # what is interrupted is to be the statement
{interrupt}
(event,) = events
print(event.fault, event.verdict.cost)
print(decided_by(event.exception).words)
with engine.connect() as connection:
    print(connection.execute(sa.text("select 42")).scalar())
"""
GEVENT = "from gevent import monkey; monkey.patch_all(); import gevent"
EVENTLET = "import eventlet; eventlet.monkey_patch(); import eventlet.timeout"
TIMED = """
try:
    with {timeout}(1.0):
        work()
except {timeout}:
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "patch", "interrupt", "expected"),
    [
        (
            "gevent",
            GEVENT,
            TIMED.format(timeout="gevent.Timeout"),
            row("gevent.timeout.Timeout"),
        ),
        (
            "gevent",
            GEVENT,
            "one = gevent.spawn(work); gevent.sleep(1.0); one.kill()",
            row("greenlet.GreenletExit"),
        ),
        (
            "eventlet",
            EVENTLET,
            TIMED.format(timeout="eventlet.timeout.Timeout"),
            row("eventlet.timeout.Timeout"),
        ),
    ],
    ids=["gevent-timeout", "gevent-kill", "eventlet-timeout"],
)
def test_a_greenlet_that_is_interrupted_costs_its_connection(
    pg, request, module, patch, interrupt, expected
):
    import importlib.util

    if importlib.util.find_spec(module) is None:
        unavailable(f"no {module}: install it")
    code = COOPERATIVE.format(patch=patch, interrupt=interrupt)
    url = pg.url("pg8000").render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(request.config.rootpath / "tests")],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.splitlines() == [
        "interrupted connection",
        expected.words,
        "42",
    ], done.stderr


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_task_that_is_cancelled_costs_its_connection(pg, driver, observer, events):
    name = f"cancelled-{driver}"
    sleeping = (
        "select 1 from pg_stat_activity where wait_event = 'PgSleep' "
        "and query like %s and pid <> pg_backend_pid()"
    )

    async def main():
        engine = create_async_engine(pg.url(driver).set(query={}))
        poolproof.guard(engine)

        async def work():
            async with engine.connect() as connection:
                await connection.execute(sa.text(f"select pg_sleep(15) /* {name} */"))

        task = asyncio.create_task(work())
        while not observer.rows(sleeping, f"%{name}%"):  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.dispose()

    asyncio.run(main())
    (event,) = events
    assert decided_by(event.exception) == row("asyncio.exceptions.CancelledError")
    assert event.verdict.cost == "connection"


def test_an_open_breaker_is_told_from_a_server_that_refuses(refusing):
    engine = sa.create_engine(
        refusing.url("psycopg2"),
        poolclass=poolproof.Pool,
        fail_fast_after=1,
    )
    first_error(engine.connect)
    error = first_error(engine.connect)
    assert isinstance(error, poolproof.BreakerOpen)
    assert decided_by(error) == row("poolproof.BreakerOpen")
    assert poolproof.classify(error).retry == "reconnect"

"""How late calls return when the peer has fallen silent, and how soon all is well."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from _rounds import Number, Story, clock
from _server import server
from sqlalchemy import create_engine, exc

import poolproof
from poolproof.drill.proxy import Proxy
from poolproof.drill.target import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

METHOD = """
A proxy on the loopback address acknowledges what a client sends and passes nothing on,
while one call is under way that has a bound of 100 ms. Late is what is left of its time
beyond the bound; QueuePool would not return at all. A round is 6 calls of each kind;
its value is the *latest* of them. Whole again is the time from the peer's recovery
until every slot of the pool (4) has answered a query rightly.
"""
DRIVERS = ("psycopg2", "psycopg", "pg8000")
CALLS = 6
LIMIT_S = 0.1
SLOTS = 4
ERRORS = (exc.DBAPIError, exc.TimeoutError, OSError)


def main() -> int:
    """Measure and report."""
    story = Story("hang", METHOD, rounds=7)
    # Every call ends with a fault, and each would be a line.
    logging.getLogger("poolproof").setLevel(logging.CRITICAL)
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)
    with server() as url_of:
        for driver in DRIVERS:
            url = url_of(driver)
            address = Address(host=str(url.host), port=int(url.port or 0))
            with Proxy(address) as proxy:
                engine = create_engine(
                    url.set(port=proxy.port),
                    poolclass=poolproof.Pool,
                    pool_size=SLOTS,
                    max_overflow=0,
                    ping_timeout=LIMIT_S,
                    reset_timeout=LIMIT_S,
                    pool_pre_ping="always",
                )
                measure(story, driver, engine, proxy)
                engine.dispose()
    return story.report()


def measure(story: Story, driver: str, engine: Engine, proxy: Proxy) -> None:
    """Measure every kind of call with one driver."""
    kinds: dict[str, Callable[[Engine, Proxy], float]] = {
        "ping": ping,
        "execute": in_block(lambda one: one.exec_driver_sql("select 1")),
        "commit": in_block(lambda one: one.commit()),
        "rollback": rollback,
        "reset": reset,
    }
    late: dict[str, list[float]] = {kind: [] for kind in kinds}
    whole: list[float] = []
    for _ in story.rounds(driver):
        for kind, call in kinds.items():
            calls = range(story.scaled(CALLS, least=1))
            late[kind].append(max(call(engine, proxy) for _ in calls) * 1e3)
        whole.append(recovery(engine, proxy) * 1e3)
    for kind, values in late.items():
        story.add(Number(f"{driver}: {kind}, latest return", "ms", values, at_most=50))
    story.add(Number(f"{driver}: whole again", "ms", whole, at_most=1000))


@contextlib.contextmanager
def silence(proxy: Proxy) -> Iterator[None]:
    """Let the peer fall silent."""
    proxy.stall()
    try:
        yield
    finally:
        proxy.resume()


def begun(engine: Engine) -> Connection:
    """Check out a connection with a transaction open."""
    connection = engine.connect()
    connection.exec_driver_sql("select 1")
    return connection


def give_back(connection: Connection) -> None:
    """Close a connection; on a busy machine its rollback may pass the limit."""
    with contextlib.suppress(*ERRORS):
        connection.close()
    connection.close()  # where the rollback failed, it is still out


def lateness(call: Callable[[], Any]) -> float:
    """Run a call that must fail; return how far beyond its bound, in seconds."""
    started = clock()
    try:
        call()
    except ERRORS:
        return clock() - started - LIMIT_S
    raise AssertionError("the call was answered, and the proxy was to be silent")


def ping(engine: Engine, proxy: Proxy) -> float:
    """A checkout whose ping is not answered; it then connects anew."""
    give_back(begun(engine))
    started = clock()
    proxy.stall(newcomers=False)
    engine.connect().close()
    late = clock() - started - LIMIT_S
    proxy.resume()  # lets the server see that its client is gone
    return late


def in_block(call: Callable[[Connection], object]) -> Callable[[Engine, Proxy], float]:
    """A call of the application's own, under `poolproof.deadline`."""

    def run(engine: Engine, proxy: Proxy) -> float:
        connection = begun(engine)
        with silence(proxy), poolproof.deadline(LIMIT_S):
            late = lateness(lambda: call(connection))
        connection.close()
        return late

    return run


def rollback(engine: Engine, proxy: Proxy) -> float:
    """A rollback of the application's own."""
    connection = begun(engine)
    with silence(proxy):
        late = lateness(connection.rollback)
    give_back(connection)
    return late


def reset(engine: Engine, proxy: Proxy) -> float:
    """The reset of a connection that comes back, whose error nobody sees."""
    raw = engine.raw_connection()
    raw.cursor().execute("select 1")
    with silence(proxy):
        started = clock()
        raw.close()
        return clock() - started - LIMIT_S


def recovery(engine: Engine, proxy: Proxy) -> float:
    """Stall every session while all are out, recover, and use every slot."""
    held = [begun(engine) for _ in range(SLOTS)]
    proxy.stall()
    for one in held:
        with contextlib.suppress(*ERRORS):
            one.rollback()
        give_back(one)
    time.sleep(LIMIT_S)
    proxy.resume()
    started = clock()
    held = [begun(engine) for _ in range(SLOTS)]
    took = clock() - started
    for one in held:
        give_back(one)
    return took


if __name__ == "__main__":
    sys.exit(main())

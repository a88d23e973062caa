"""Real drivers while a real server is away, and when it comes back."""

from __future__ import annotations

import threading
import time

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc

import poolproof
from plugins.cluster import Cluster
from plugins.processes import ScriptHost, run_script
from plugins.threads import Task

pytestmark = pytest.mark.slow

ERRORS = (exc.DBAPIError, poolproof.PoolTimeout)


def count_attempts(engine):
    """Return a list that gets the time of each attempt to connect."""
    times = []
    event.listen(engine, "do_connect", lambda *_: times.append(time.monotonic()))
    return times


def test_twenty_callers_at_a_dead_port_try_a_few_times(refusing, driver, engine_of):
    engine = engine_of(
        refusing.url(driver), pool_size=20, checkout_timeout=2, ping_timeout=1
    )
    attempts = count_attempts(engine)
    end = time.monotonic() + 2
    outcomes = []

    def persist():
        while time.monotonic() < end:
            try:
                engine.connect()
            except ERRORS as error:
                outcomes.append(error.with_traceback(None))

    for task in [Task(persist) for _ in range(20)]:
        task.result(30)
    # Twenty that begin at once may all begin before the first has failed.
    assert 2 <= len([at for at in attempts if at < end]) <= 20 + 12
    timeouts = [one for one in outcomes if isinstance(one, poolproof.PoolTimeout)]
    assert timeouts
    for one in timeouts:
        assert isinstance(one.__cause__, engine.dialect.dbapi.Error), one
    assert engine.pool.checkedout() == 0


@pytest.fixture
def machine(pg):
    """Run a server of one test's own, which may be stopped."""
    cluster = Cluster(pg.binaries, package=pg.package)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def start_again(machine):
    machine._launch()
    assert machine._became_ready()


def test_callers_go_on_when_the_server_is_back(machine, driver, engine_of):
    engine = engine_of(
        machine.url(driver), pool_size=10, checkout_timeout=20, pool_timeout=20
    )
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
    attempts = count_attempts(engine)
    machine.kill()
    down = threading.Event()
    failures = []

    def persist(number):
        while True:
            try:
                with engine.connect() as connection:
                    return connection.scalar(sa.text(f"select {number}"))
            except exc.DBAPIError as error:
                failures.append(error.with_traceback(None))
                down.set()

    tasks = [Task(persist, number) for number in range(10)]
    assert down.wait(10)
    time.sleep(0.5)
    assert len(attempts) < 10 + 10
    start_again(machine)
    began = time.monotonic()
    assert [task.result() for task in tasks] == list(range(10))
    assert time.monotonic() - began < 15  # not the 20 s that a checkout may take
    assert engine.pool.stats().connect_failures == 0
    assert engine.pool.checkedout() == 0


def test_breaker_opens_and_closes_with_the_server(machine, driver, engine_of):
    engine = engine_of(machine.url(driver), fail_fast_after=2)
    machine.kill()
    for _ in range(2):
        with pytest.raises(exc.DBAPIError):
            engine.connect()
    engine.pool._connecting._next_at = time.monotonic() + 60
    with pytest.raises(poolproof.BreakerOpen) as caught:
        engine.connect()
    assert isinstance(caught.value.__cause__, engine.dialect.dbapi.Error)
    engine.pool._connecting._next_at = 0
    start_again(machine)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1
    assert not engine.pool.stats().breaker_open


# --- signals and greenlets, in processes of their own ---------------------------------

CTRL_C = """
import os, signal, sys, threading, time
import poolproof
from plugins.dbapi import OperationalError, SocketDBAPI
from plugins.threads import Task, assert_whole, eventually

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
dbapi = SocketDBAPI()
dbapi.script["connect"] = OperationalError("down")
pool = poolproof.Pool(dbapi.connect, pool_size=5, max_overflow=0, checkout_timeout=30)
try:
    pool.connect()
except OperationalError:
    pass
connecting = pool._connecting
connecting._next_at = time.monotonic() + 60
others = []
sent = []

def interrupt(wanted):
    eventually(lambda: connecting._gate.snapshot()[1:3] == wanted)
    time.sleep(0.02)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

if sys.argv[1] == "queue":  # another one has the turn
    others.append(Task(pool.connect))
    eventually(lambda: connecting._gate.snapshot()[1] == 1)
    helper = Task(interrupt, (1, 1))
else:
    helper = Task(interrupt, (1, 0))
try:
    pool.connect()
except KeyboardInterrupt:
    print(time.monotonic() - sent[0])
else:
    sys.exit("was not interrupted")
helper.result()
assert pool.checkedout() == len(others)
dbapi.script.clear()
connecting._next_at = 0
for other in others:
    other.result().close()
assert_whole(pool, dbapi, 5)
"""


@pytest.mark.parametrize("place", ["queue", "turn"])
def test_ctrl_c_ends_the_wait_at_once_and_the_turn_is_free(place):
    done = run_script(CTRL_C, place)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10  # of the 30 s that a checkout may take
    assert not done.stderr


GEVENT = """
from gevent import monkey
monkey.patch_all()
import os, sys, time
import gevent
import poolproof
from plugins.dbapi import OperationalError, SocketDBAPI

ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1

ticker = gevent.spawn(tick)

def make(**parameters):
    pool = poolproof.Pool(
        dbapi.connect, pool_size=10, max_overflow=0,
        **{"checkout_timeout": 20, **parameters},
    )
    try:
        pool.connect()
    except OperationalError:
        pool._connecting._next_at = time.monotonic() + 60
    return pool

def attempt(pool):
    try:
        return pool.connect()
    except Exception as error:
        return error
"""


@pytest.fixture(scope="module")
def patched():
    """Start a patched process."""
    pytest.importorskip("gevent")
    host = ScriptHost(GEVENT, warnings="default")
    yield host
    host.close()


@pytest.fixture
def run(patched):
    """Return a function that runs a script and returns what it answers."""
    down = """
dbapi = SocketDBAPI()
dbapi.script["connect"] = OperationalError("down")
"""
    return lambda source: patched.run(down + source)


def test_greenlets_wait_without_stopping_the_others(run):
    (ticks, *kinds) = run(
        """
pool = make(checkout_timeout=1)
before = ticks
greenlets = [gevent.spawn(attempt, pool) for _ in range(8)]
gevent.joinall(greenlets, timeout=10, raise_error=True)
answer(ticks - before, *{type(one.value).__name__ for one in greenlets})
assert dbapi.connects == 1, dbapi.calls
assert pool.checkedout() == 0
"""
    )
    assert kinds == ["PoolTimeout"]
    assert int(ticks) > 10


def test_success_lets_all_greenlets_go(run):
    (most,) = run(
        """
pool = make()
greenlets = [gevent.spawn(attempt, pool) for _ in range(8)]
gevent.sleep(0.1)
inside = most = 0

def slow(_):
    global inside, most
    inside += 1
    most = max(most, inside)
    gevent.sleep(0.1)
    inside -= 1

dbapi.script["connect"] = slow
pool._connecting._next_at = 0
gevent.joinall(greenlets, timeout=10, raise_error=True)
answer(most)
for one in greenlets:
    one.value.close()
assert pool.stats().connect_failures == 0
assert pool.checkedout() == 0
"""
    )
    assert int(most) > 1  # one by one they tried before


def test_killed_greenlet_gives_its_turn_away(run):
    run(
        """
pool = make()
greenlets = [gevent.spawn(attempt, pool) for _ in range(3)]
gevent.sleep(0.1)
for one in greenlets[:2]:
    one.kill()
dbapi.script.clear()
pool._connecting._next_at = 0
greenlets[2].join(5)
greenlets[2].value.close()
assert pool.checkedout() == 0
"""
    )


@pytest.mark.fork
def test_greenlets_that_wait_at_a_fork_go_on_in_both_processes(run):
    words = run(
        """
pool = make()
greenlets = [gevent.spawn(attempt, pool) for _ in range(4)]
gevent.sleep(0.1)
reading, writing = os.pipe()
dbapi.script.clear()
pid = os.fork()
if pid == 0:
    status = 1
    try:
        # Nothing has failed in this process: nobody waits for 60 s.
        gevent.joinall(greenlets, timeout=5)
        kinds = [type(one.value).__name__ for one in greenlets]
        os.write(writing, " ".join([*kinds, str(pool.checkedout())]).encode())
        status = 0
    finally:
        os._exit(status)
os.close(writing)
os.waitpid(pid, 0)
answer(os.read(reading, 1000).decode())
os.close(reading)
pool._connecting._next_at = 0
gevent.joinall(greenlets, timeout=5, raise_error=True)
for one in greenlets:
    one.value.close()
assert pool.checkedout() == 0
"""
    )
    assert words == [" ".join(["_ConnectionFairy"] * 4 + ["4"])]

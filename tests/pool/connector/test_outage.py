"""Real drivers while a real server is away, and when it comes back."""

from __future__ import annotations

import contextlib
import pickle
import re
import time

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import QueuePool

import poolproof
from plugins.cluster import Cluster
from plugins.outages import postpone
from plugins.processes import ScriptHost, run_script
from plugins.threads import Task, eventually

pytestmark = pytest.mark.slow


def count_attempts(engine):
    """Return a list that gets the time of each attempt to connect."""
    times = []
    event.listen(engine, "do_connect", lambda *_: times.append(time.monotonic()))
    return times


def persist(engine, seconds):
    """Have 20 threads connect again and again; return what tells how long each took."""
    end = time.monotonic() + seconds
    took = []

    def again():
        while (began := time.monotonic()) < end:
            with pytest.raises(exc.DBAPIError):
                engine.connect()
            took.append(time.monotonic() - began)
            time.sleep(0.02)

    return [Task(again) for _ in range(20)], took


@pytest.mark.alone
@pytest.mark.quick("psycopg2")
def test_refusal_takes_no_longer_than_with_queue_pool(refusing, driver, engine_of):
    """Twice as long at most at the same time; the server sees two attempts a second."""
    engines = [
        engine_of(refusing.url(driver), poolclass=kind, pool_size=20)
        for kind in (QueuePool, poolproof.Pool)
    ]
    attempts = count_attempts(engines[1])
    began = time.monotonic()
    crowds = [persist(engine, 2.0) for engine in engines]
    for tasks, _ in crowds:
        for task in tasks:
            task.result(60)
    seconds = time.monotonic() - began
    # Twenty that begin at once may all begin before the first has failed.
    assert len(attempts) <= 20 + 2 * seconds + 2
    theirs, ours = (sorted(took) for _, took in crowds)
    for share in (0.5, 0.99):
        us, them = (took[int(share * len(took))] for took in (ours, theirs))
        assert us <= 2 * them, (share, us, them)


def test_answer_of_another_attempt_is_of_the_drivers_class(refusing, driver, engine_of):
    engine = engine_of(refusing.url(driver))
    with pytest.raises(exc.DBAPIError) as first:
        engine.connect()
    postpone(engine.pool)
    answers = []
    for _ in range(2):
        with pytest.raises(type(first.value)) as caught:
            engine.connect()
        answers.append(caught.value.orig)
    assert answers[0] is not answers[1]
    for one in answers:
        assert type(one) is type(first.value.orig)
        text = str(one)
        assert text.startswith(str(first.value.orig).strip())
        assert re.search(r"the last attempt failed 0\.\d\d s ago", text), text
        assert str(pickle.loads(pickle.dumps(one))) == text
        assert "is in use" not in text
        verdict = poolproof.classify(one)
        assert verdict.fault is poolproof.Fault.UNREACHABLE


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
    engine = engine_of(machine.url(driver), pool_size=10, connect_retry_for=20)
    with engine.connect() as connection:
        connection.execute(sa.text("select 1"))
    attempts = count_attempts(engine)
    machine.kill()

    def persist(number):
        while True:
            # What was connected before breaks; what cannot be connected waits.
            with contextlib.suppress(exc.DBAPIError), engine.connect() as connection:
                return connection.scalar(sa.text(f"select {number}"))

    tasks = [Task(persist, number) for number in range(10)]
    eventually(lambda: engine.pool.stats().connect_failures)
    time.sleep(0.5)
    assert len(attempts) < 10 + 4
    start_again(machine)
    began = time.monotonic()
    assert [task.result() for task in tasks] == list(range(10))
    assert time.monotonic() - began < 15  # not the 20 s that a checkout may take
    assert engine.pool.stats().connect_failures == 0
    assert engine.pool.checkedout() == 0


@pytest.mark.alone
def test_first_answer_comes_half_a_second_after_queue_pools_at_most(machine, engine_of):
    engines = [
        engine_of(machine.url("psycopg2"), poolclass=kind, pool_size=4)
        for kind in (QueuePool, poolproof.Pool)
    ]
    machine.kill()

    def persist(engine):
        while True:
            try:
                with engine.connect():
                    return time.monotonic()
            except exc.DBAPIError:
                time.sleep(0.01)

    tasks = [[Task(persist, engine) for _ in range(4)] for engine in engines]
    eventually(lambda: engines[1].pool.stats().connect_failures)
    start_again(machine)
    theirs, ours = (min(task.result(60) for task in each) for each in tasks)
    assert ours - theirs < 0.5 + 0.25


def test_breaker_opens_and_closes_with_the_server(machine, driver, engine_of):
    engine = engine_of(machine.url(driver), fail_fast_after=2)
    machine.kill()
    for _ in range(2):
        engine.pool._connecting._next_at = 0
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
pool = poolproof.Pool(dbapi.connect, pool_size=5, max_overflow=0)
try:
    pool.connect()
except OperationalError:
    pass
connecting = pool._connecting
connecting._retry_for = 30.0
connecting._next_at = time.monotonic() + 60
others = []
sent = []

def interrupt(waiting):
    eventually(lambda: len(connecting.bells) == waiting)
    time.sleep(0.02)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

if sys.argv[1] == "others":
    others.append(Task(pool.connect))
    eventually(lambda: len(connecting.bells) == 1)
helper = Task(interrupt, 1 + len(others))
try:
    pool.connect()
except KeyboardInterrupt:
    print(time.monotonic() - sent[0])
else:
    sys.exit("was not interrupted")
helper.result()
assert pool.checkedout() == len(others)
eventually(lambda: len(connecting.bells) == len(others))
dbapi.script.clear()
connecting._next_at = 0
for other in others:
    other.result().close()
assert_whole(pool, dbapi, 5)
"""


@pytest.mark.parametrize("beside", ["alone", "others"])
def test_ctrl_c_ends_the_wait_at_once(beside):
    done = run_script(CTRL_C, beside)
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
        **parameters,
    )
    try:
        pool.connect()
    except OperationalError:
        pool._connecting._is_away = True
        pool._connecting._next_at = time.monotonic() + 60
        pool._connecting._retry_for = 20.0
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


def test_killed_greenlet_waits_no_more(run):
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

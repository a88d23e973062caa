"""Under gevent a waiting greenlet lets the others run.

The tests run in other processes, patched before anything else is imported. Long,
because it is one idea, and one kind of process.
"""

from __future__ import annotations

import importlib.util

import pytest

from plugins.processes import ScriptHost, run_script

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)

PRELUDE = """
from gevent import monkey
monkey.patch_all()
import logging, sys, threading, time
import gevent
from sqlalchemy import exc
from sqlalchemy.pool import QueuePool
import poolproof
from plugins.dbapi import SocketDBAPI

cls = {"queue": QueuePool, "poolproof": poolproof.Pool}[sys.argv[1]]

def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1

ticks = 0
ticker = gevent.spawn(tick)
dbapi = SocketDBAPI()
# A greenlet that waits beside what it holds itself is warned of.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())

def whole(pool, capacity):
    assert pool.checkedout() == 0, pool.status()
    pool._timeout = 5
    taken = [pool.connect() for _ in range(capacity)]
    assert pool.checkedout() == capacity
    for one in taken:
        one.close()
"""


@pytest.fixture(scope="session")
def hosts():
    """Start a patched process for each pool."""
    made = {
        name: ScriptHost(PRELUDE, name, warnings="default")
        for name in ("queue", "poolproof")
    }
    yield made
    for host in made.values():
        host.close()


@pytest.fixture
def run(pool_class, hosts):
    """Return a function that runs a script and returns what it answers."""
    host = hosts[name_of(pool_class)]

    def run_it(source):
        return host.run("dbapi = SocketDBAPI()\nticks = 0\n" + source)

    return run_it


def name_of(pool_class):
    return "queue" if pool_class.__name__ == "QueuePool" else "poolproof"


def test_sixty_greenlets_share_five_connections_and_the_hub_is_never_blocked(run):
    (ticks,) = run(
        """
pool = cls(dbapi.connect, pool_size=3, max_overflow=2, timeout=20)
dbapi.script["connect"] = lambda _: gevent.sleep(0.005)
longest = 0.0

def work():
    for _ in range(10):
        with pool.connect():
            gevent.sleep(0.002)

def watch():
    global longest
    before = time.monotonic()
    while True:
        gevent.sleep(0.001)
        now = time.monotonic()
        longest = max(longest, now - before)
        before = now

watcher = gevent.spawn(watch)
greenlets = [gevent.spawn(work) for _ in range(60)]
gevent.joinall(greenlets, timeout=30, raise_error=True)
assert all(greenlet.successful() for greenlet in greenlets)
assert dbapi.peak <= 5, dbapi.peak
assert longest < 10, longest
watcher.kill()
whole(pool, 5)
answer(ticks)
""",
    )
    assert int(ticks) > 5


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_time_out_names_the_thread_whose_greenlet_holds_on(run):
    (words,) = run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=0)
held = pool.connect()
try:
    pool.connect()
except exc.TimeoutError as error:
    answer(error.holders[0].thread.replace(" ", "_"))
held.close()
whole(pool, 1)
""",
    )
    assert words == "a_greenlet_of_MainThread"


def test_time_out_comes_in_time_and_the_hub_runs_on(run):
    (ticks,) = run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=1)
held = pool.connect()
began = time.monotonic()
try:
    pool.connect()
except exc.TimeoutError:
    took = time.monotonic() - began
assert 0.9 < took < 10, took
held.close()
whole(pool, 1)
answer(ticks)
""",
    )
    assert int(ticks) > 5


def test_timeout_none_waits_until_a_connection_is_there(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=None)
held = pool.connect()
waiter = gevent.spawn(lambda: pool.connect().close())
while ticks < 20:
    gevent.sleep(0.001)
assert not waiter.ready()
held.close()
waiter.get(timeout=5)
whole(pool, 1)
""",
    )


def test_connection_that_comes_back_wakes_its_waiter_at_once(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=20)
waits = []
for _ in range(21):
    held = pool.connect()
    waiter = gevent.spawn(lambda: pool.connect().close())
    gevent.sleep(0.005)
    began = time.monotonic()
    held.close()
    waiter.get(timeout=5)
    waits.append(time.monotonic() - began)
assert sorted(waits)[10] < 2, waits  # and not the 20 s that one may wait
whole(pool, 1)
""",
    )


@pytest.mark.parametrize("kind", ["GreenletExit", "KeyboardInterrupt", "Timeout"])
def test_greenlet_that_is_ended_while_it_waits_loses_no_slot(run, kind):
    run(
        f"kind = {kind!r}\n"
        """
kinds = {
    "GreenletExit": gevent.GreenletExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "Timeout": gevent.Timeout,
}
kind = kinds[kind]
pool = cls(dbapi.connect, pool_size=2, max_overflow=0, timeout=2)
ended = []

def wait():
    try:
        pool.connect().close()
    except kind:
        ended.append(True)

for turn in range(10):
    held = [pool.connect(), pool.connect()]
    waiters = [gevent.spawn(wait) for _ in range(6)]
    gevent.sleep(0.005)
    for waiter in waiters[::2]:
        waiter.kill(kind, block=False)
    if turn % 2:
        gevent.sleep(0.005)
    for one in held:
        one.close()  # the offers and the endings race
    gevent.joinall(waiters, timeout=10, raise_error=True)
    assert all(waiter.ready() for waiter in waiters)
assert ended
whole(pool, 2)
""",
    )


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_offer_to_a_greenlet_that_is_ended_goes_to_the_next_at_once(run):
    """Under QueuePool the greenlet takes the wake-up with it to its end."""
    (median,) = run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=20)
waits = []
for _ in range(11):
    held = pool.connect()
    first = gevent.spawn(lambda: pool.connect().close())
    gevent.sleep(0.002)
    second = gevent.spawn(lambda: pool.connect().close())
    gevent.sleep(0.002)
    first.kill(block=False)
    held.close()
    began = time.monotonic()
    second.get(timeout=10)
    waits.append(time.monotonic() - began)
whole(pool, 1)
answer(sorted(waits)[5])
""",
    )
    assert float(median) < 2  # of the 20 s that one may wait


def test_failed_connect_in_one_greenlet_serves_the_next_by_its_deadline(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=2.0)

def refuse_the_first(connection):
    if connection.number == 1:
        gevent.sleep(0.02)
        raise dbapi.OperationalError("refused")

dbapi.script["connect"] = refuse_the_first

def first():
    try:
        pool.connect()
    except dbapi.OperationalError:
        return "refused"

failing = gevent.spawn(first)
gevent.sleep(0.005)
waiter = gevent.spawn(lambda: pool.connect().close())
assert failing.get(timeout=10) == "refused"
waiter.get(timeout=10)
whole(pool, 1)
""",
    )


def test_dropped_connection_serves_a_waiting_greenlet(run):
    run(
        """
import gc
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=20)
kept = [pool.connect()]
waiter = gevent.spawn(lambda: pool.connect().close())
gevent.sleep(0.005)
kept.clear()
gc.collect()
waiter.get(timeout=10)
whole(pool, 1)
""",
    )


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_greenlets_are_served_in_the_order_of_their_arrival(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=20)
held = pool.connect()
served = []

def wait(name):
    with pool.connect():
        served.append(name)
        gevent.sleep(0)

waiters = []
for name in range(20):
    waiters.append(gevent.spawn(wait, name))
    gevent.sleep(0)
held.close()
with pool.connect():
    served.append("newcomer")
gevent.joinall(waiters, timeout=10, raise_error=True)
assert served == [*range(20), "newcomer"], served
whole(pool, 1)
""",
    )


def test_pool_that_was_imported_before_the_patch_waits_cooperatively(pool_class):
    """``gunicorn -k gevent`` patches after much has been imported."""
    done = run_script(
        "import poolproof, sqlalchemy.pool\n"
        + PRELUDE
        + """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=1)
held = pool.connect()
try:
    pool.connect()
except exc.TimeoutError:
    print(ticks)
held.close()
whole(pool, 1)
""",
        name_of(pool_class),
        warnings="default",
    )
    assert (done.returncode, done.stderr) == (0, "")
    if pool_class.__name__ != "QueuePool":  # which took the locks it found at import
        assert int(done.stdout) > 5


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_newest_greenlet_is_served_first_once_time_has_run_out(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=20)

def work(name):
    with pool.connect():
        served.append(name)

for _ in range(20):
    held = pool.connect()
    served = []
    greenlets = [gevent.spawn(work, name) for name in range(4)]
    while pool.stats().waiting < 4:
        gevent.sleep(0.001)
    try:
        with poolproof.deadline(0.2):
            pool.connect()
    except exc.TimeoutError:
        ran_out_at = time.monotonic()
    held.close()
    gevent.joinall(greenlets, timeout=10, raise_error=True)
    if time.monotonic() - ran_out_at < 0.3:  # else the machine has paused
        break
assert served == [3, 2, 1, 0], served
assert not pool.stats().newest_first
whole(pool, 1)
""",
    )


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_greenlets_that_wait_for_what_they_hold_are_told(run):
    """All of them are one thread to the gate; each is told from the others."""
    run(
        """
import logging

said = []

class Listen(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

pool = cls(dbapi.connect, pool_size=2, max_overflow=0, timeout=0.3)
listen = Listen(level=logging.WARNING)
pool.logger.addHandler(listen)

# One holder waits, the other is at work: nothing is said.
held = pool.connect()
def nested():
    with pool.connect():
        pool.connect().close()
waiter = gevent.spawn(nested)
while pool.stats().waiting < 1:
    gevent.sleep(0.001)
held.close()
waiter.get(timeout=10)
assert said == [], said

# A crowd of which none holds anything: nothing is said.
held = [pool.connect(), pool.connect()]
crowd = [gevent.spawn(lambda: pool.connect().close()) for _ in range(3)]
while pool.stats().waiting < 3:
    gevent.sleep(0.001)
for one in held:
    one.close()
gevent.joinall(crowd, timeout=10, raise_error=True)
assert said == [], said

# Both hold one and want one more.
errors = []
inside = []
def ring():
    with pool.connect():
        inside.append(1)
        while len(inside) < 2:
            gevent.sleep(0.001)
        try:
            pool.connect().close()
        except exc.TimeoutError as error:
            errors.append(error)

gevent.joinall([gevent.spawn(ring) for _ in range(2)], timeout=20, raise_error=True)
pool.logger.removeHandler(listen)
assert type(errors[0]) is poolproof.NestedCheckout, errors
assert (errors[0].callers, errors[0].held, errors[0].enough) == (2, 1, 4)
(text,) = said
assert "waits here for one more" in text and "in ring" in text, text
errors.clear()
whole(pool, 2)
""",
    )


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_greenlet_that_completes_a_ring_is_refused_early_on_demand(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=20, nested_timeout=0)
began = time.monotonic()
with pool.connect():
    try:
        pool.connect()
    except poolproof.NestedCheckout as error:
        assert error.enough == 2
assert time.monotonic() - began < 15
whole(pool, 1)
""",
    )


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_greenlets_wait_for_the_hosts_budget_and_let_others_run(run):
    run(
        """
import tempfile

budget = ("app", 2, tempfile.mkdtemp())
pools = [cls(dbapi.connect, pool_size=4, timeout=20, host_budget=budget) for _ in "ab"]

def work(pool):
    with pool.connect():
        gevent.sleep(0.01)

before = ticks
jobs = [gevent.spawn(work, pool) for pool in pools * 10]
gevent.joinall(jobs, timeout=20, raise_error=True)
assert all(job.successful() for job in jobs)
assert ticks - before > 5, ticks - before
assert max(dbapi._sizes) <= 2, dbapi.peak
quitter = gevent.spawn(lambda: [pools[0].connect() for _ in range(3)])
gevent.sleep(0.3)
quitter.kill()
assert pools[0].budget.parts().waiting == {}
for pool in pools:
    pool.dispose()
import gc
gc.collect()
assert pools[0].budget.parts().held == {}, pools[0].budget.parts()
""",
    )


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_greenlet_too_many_is_refused_at_once(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=20, max_waiting=1)

def work():
    with pool.connect():
        gevent.sleep(0)

with pool.connect():
    waiting = gevent.spawn(work)
    gevent.sleep(0.05)
    try:
        pool.connect()
    except poolproof.TooManyWaiting as error:
        assert error.waiting == 1
    else:
        raise AssertionError
waiting.join(20)
assert waiting.successful()
whole(pool, 1)
""",
    )

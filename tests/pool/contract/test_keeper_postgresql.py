"""The keeper with real servers and drivers, at the interpreter's end, under gevent."""

from __future__ import annotations

import importlib.util
import time

import pytest
from sqlalchemy import event, text

import poolproof
from plugins.processes import run_script
from plugins.server import DRIVERS
from plugins.threads import Task, eventually

pytestmark = pytest.mark.difference
BACKEND = text("select pg_backend_pid()")


@pytest.fixture
def pool_class():
    return poolproof.Pool


@pytest.fixture
def make(make_engine, pg_url, driver):
    def make_it(**parameters):
        return make_engine(pg_url(driver), pool_timeout=10, **parameters)

    return make_it


def use(engine, count=1):
    connections = [engine.connect() for _ in range(count)]
    backends = [connection.scalar(BACKEND) for connection in connections]
    for connection in connections:
        connection.close()
    return backends


def test_difference_sessions_that_rest_too_long_end_in_order(make, observer):
    engine = make(max_idle=0.3)
    before = observer.value("select sessions_abandoned from pg_stat_database_abandoned")
    assert len(set(use(engine, 3))) == 3
    assert observer.wait_for_backends(0) == []
    # The drivers said goodbye: the server does not count these as lost.
    observer.rows("select pg_stat_clear_snapshot()")
    after = observer.value("select sessions_abandoned from pg_stat_database_abandoned")
    assert after == before
    assert engine.pool.stats().discarded == {"idle": 3}
    assert len(use(engine, 2)) == 2


@pytest.fixture(autouse=True)
def _abandoned(observer):
    observer.rows(
        "create or replace view pg_stat_database_abandoned as select "
        "sessions_abandoned from pg_stat_database where datname = current_database()"
    )
    yield
    observer.rows("drop view pg_stat_database_abandoned")


def test_difference_pruning_goes_down_to_min_idle(make, observer):
    engine = make(max_idle=0.3, min_idle=2)
    use(engine, 4)
    assert len(observer.wait_for_backends(2)) == 2
    time.sleep(0.4)
    assert len(observer.backends()) == 2


def test_difference_sessions_are_ready_after_the_first_use(make, observer):
    engine = make(min_idle=3)
    assert observer.backends() == []
    with engine.connect() as connection:
        connection.scalar(BACKEND)
        eventually(lambda: engine.pool.checkedin() == 3)
        assert len(observer.backends()) == 4
    ready = set(observer.backends())
    assert set(use(engine, 3)) <= ready


@pytest.mark.quick("psycopg2")
def test_difference_lifetime_replaces_sessions_that_rest(make, observer):
    engine = make(min_idle=1, max_lifetime=1.0)
    use(engine)
    first = set(observer.backends())
    eventually(lambda: observer.backends() and not first & set(observer.backends()))
    eventually(lambda: engine.pool.stats().discarded.get("lifetime"))


def test_difference_session_that_was_terminated_at_rest_is_none_of_the_keepers_trouble(
    make, observer, caplog
):
    engine = make(max_idle=0.5)
    for pid in use(engine, 2):
        observer.end(pid)  # unless it has rested too long by now
    eventually(lambda: engine.pool.checkedin() == 0)
    engine.dispose()
    use(engine)


@pytest.mark.quick("psycopg2")
def test_difference_many_threads_work_beside_the_keeper(make, observer):
    engine = make(
        pool_size=3, max_overflow=2, min_idle=2, max_idle=0.01, max_lifetime=1.0
    )
    # From the pool's side: a session that has been ended may be seen for a while.
    are_open, most = set(), []

    def open_one(connection, _entry):
        are_open.add(id(connection))
        most.append(len(are_open))

    event.listen(engine, "connect", open_one)
    event.listen(engine, "close", lambda one, _entry: are_open.discard(id(one)))
    stop_at = time.monotonic() + 1.5

    def work(name):
        done = 0
        while time.monotonic() < stop_at:
            with engine.connect() as connection:
                number = name * 1_000_000 + done
                assert (
                    connection.scalar(text("select cast(:n as integer)"), {"n": number})
                    == number
                )
            done += 1
            if done % 20 == 0:
                time.sleep(0.03)
        return done

    tasks = [Task(work, name) for name in range(16)]
    assert all(task.result(60) > 0 for task in tasks)
    eventually(lambda: engine.pool.checkedout() == 0)  # the keeper has its turns
    assert max(most) <= 5
    assert sum(engine.pool.stats().discarded.values()) > 0
    assert len(observer.wait_for_backends(2)) == 2


def test_difference_listeners_hear_of_what_the_keeper_does(make):
    engine = make(min_idle=1, max_idle=0.2)
    heard = []
    for name in ("connect", "close", "checkout", "checkin"):
        event.listen(engine.pool, name, lambda *_, name=name: heard.append(name))
    use(engine, 2)
    eventually(lambda: "close" in heard)
    assert heard.count("checkout") == 2
    assert heard.count("connect") >= 2


# --- the interpreter's end ------------------------------------------------------------

ENDS = {
    "while the keeper sleeps": "use(2)",
    "while something is due": "use(2); time.sleep(0.05)",
    "in the middle of a look": """
import threading
begun = threading.Event()
def slow(*_):
    begun.set()
    time.sleep(60)
sqlalchemy.event.listen(engine.pool, "close", slow)
use(1)
begun.wait(5)
""",
    "while the keeper connects": """
import threading
begun = threading.Event()
def slow(*_):
    if threading.current_thread().name == "poolproof-keeper":
        begun.set()
        time.sleep(60)
sqlalchemy.event.listen(engine, "do_connect", slow)
use(1)
begun.wait(5)
""",
    "with a connection that is out": "kept = engine.connect()",
    "in a thread that uses the pool": """
import threading
def work():
    while True:
        use(1)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
""",
    "after a disposal in an exit handler": """
import atexit
atexit.register(engine.dispose)
use(2)
atexit.register(use, 1)
""",
    "by an error": "use(2); raise SystemExit(0)",
}


# How each driver closes, and each place of the keeper with one of them.
ENDINGS = [
    (name, end)
    for name in DRIVERS
    for end in ENDS
    if name == DRIVERS[0] or end in {"while the keeper sleeps", "by an error"}
]


@pytest.mark.parametrize(("driver", "end"), ENDINGS)
@pytest.mark.quick("psycopg2")
def test_difference_interpreter_ends_in_silence(pg_url, driver, end):
    url = pg_url(driver).render_as_string(hide_password=False)
    began = time.monotonic()
    done = run_script(
        """
import sys, time
import sqlalchemy
import poolproof
engine = sqlalchemy.create_engine(
    sys.argv[1], poolclass=poolproof.Pool, max_idle=0.05, min_idle=1,
    hold_warning=60.0)
def use(count):
    connections = [engine.connect() for _ in range(count)]
    for connection in connections:
        connection.exec_driver_sql("select 1")
    for connection in connections:
        connection.close()
"""
        + ENDS[end],
        url,
        seconds=55,
        warnings="ignore",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 50  # what it waits for would take 60 s


# --- gevent ---------------------------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)
def test_difference_keeper_is_a_greenlet_under_gevent_and_lets_the_others_run(pg_url):
    url = pg_url("pg8000").render_as_string(hide_password=False)
    done = run_script(
        """
from gevent import monkey; monkey.patch_all()
import logging, os, sys, threading, time
import gevent
from sqlalchemy import create_engine, text
import poolproof
logging.basicConfig(stream=sys.stdout, format="%(message).20s")
engine = create_engine(sys.argv[1], poolclass=poolproof.Pool, max_idle=0.2, min_idle=2,
                       max_lifetime=1.0, hold_warning=0.3, pool_timeout=10)
ticks = 0

def watch():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1

watcher = gevent.spawn(watch)

def use(seconds):
    with engine.connect() as connection:
        connection.execute(text("select pg_sleep(:s)"), {"s": seconds})

def wait_for(condition):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 60, engine.pool.status()
        gevent.sleep(0.005)

gevent.joinall([gevent.spawn(use, 0.05) for _ in range(5)], raise_error=True)
wait_for(lambda: engine.pool.checkedin() == 2)
threads = monkey.get_original("threading", "_active")
# A greenlet counts as a thread there once it has logged, as the keeper has on a busy
# machine; all run in one of the system's.
natives = {thread.native_id for thread in list(threads.values())}
assert natives == {os.getpid()}, threads
before = ticks
use(0.5)  # a warning
assert ticks - before > 10, ticks - before
discarded = engine.pool.stats().discarded  # on a busy machine too old before
print(discarded.get("idle", 0) + discarded.get("lifetime", 0) > 0)
pid = os.fork()
if pid == 0:
    use(0.01)
    wait_for(lambda: engine.pool.checkedin() == 2)
    engine.dispose()
    gevent.sleep(1.3)  # the parent's keeper, which lives on in here, has its end
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
wait_for(lambda: engine.pool.checkedin() == 2)
engine.dispose()
assert ticks > 50, ticks
""",
        url,
        warnings="ignore",
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    # One warning at the least: on a busy machine others hold on for long as well.
    assert set(done.stdout.split("\n")) == {"poolproof: A connect", "True", ""}

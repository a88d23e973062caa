"""Ctrl-C, signals and the interpreter lock while a thread waits.

Each test runs in another process, which gets real signals.
"""

from __future__ import annotations

import pytest

from plugins.processes import ScriptHost, run_script

PRELUDE = """
import linecache, logging, os, signal, sys, threading, time
from sqlalchemy import exc
from sqlalchemy.pool import QueuePool
import poolproof
from plugins.dbapi import SocketDBAPI
from plugins.threads import Task, assert_whole, wait_for_waiters

# A thread that waits beside what it holds itself is warned of.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())
# The warning shows lines of these, read once: an interrupt in there leaves a file open.
for name, module in list(sys.modules.items()):
    if name.startswith(("poolproof", "sqlalchemy.pool")):
        linecache.getlines(module.__file__)
dbapi = SocketDBAPI()
cls = {"queue": QueuePool, "poolproof": poolproof.Pool}[sys.argv[1]]
"""


@pytest.fixture(scope="session")
def hosts():
    """Start a process for each pool."""
    made = {name: ScriptHost(PRELUDE, name) for name in ("queue", "poolproof")}
    yield made
    for host in made.values():
        host.close()


@pytest.fixture
def run(pool_class, hosts):
    """Return a function that runs a script and returns what it answers."""
    host = hosts[name_of(pool_class)]

    def run_it(source, **how):
        return host.run("dbapi = SocketDBAPI()\n" + source, **how)

    return run_it


def name_of(pool_class):
    return "queue" if pool_class.__name__ == "QueuePool" else "poolproof"


@pytest.mark.parametrize("timeout", ["None", "30.0"])
def test_ctrl_c_ends_the_wait_at_once_and_loses_no_slot(run, timeout):
    (seconds,) = run(
        f"""
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout={timeout})
held = pool.connect()
sent = []
heard = threading.Event()
# QueuePool sleeps in the interpreter's own lock, and does not hear what comes in the
# last instant before that.
repeats = 20 if cls is QueuePool else 1

def interrupt():
    wait_for_waiters(pool, 1)
    for _ in range(repeats):
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
        if heard.wait(5):
            return

helper = Task(interrupt)
try:
    pool.connect()
except KeyboardInterrupt:
    heard.set()
    answer(time.monotonic() - sent[-1])
else:
    sys.exit("was not interrupted")
helper.result()
assert pool.checkedout() == 1
held.close()
pool._timeout = 10
assert_whole(pool, dbapi, 1)
""",
    )
    assert float(seconds) < 10  # of the 30 s, or for ever, that one may wait


@pytest.mark.difference
@pytest.mark.parametrize("pool_class", ["poolproof"], indirect=True)
def test_difference_ctrl_c_at_any_moment_loses_no_slot(run):
    """Not asked of QueuePool, which counts first and makes its record later."""
    (interrupts,) = run(
        """
import random
rounds = 40
interrupts = 0
for seed in range(rounds):
    pool = cls(dbapi.connect, pool_size=1, max_overflow=1, timeout=5)
    started, sent = threading.Event(), threading.Event()

    def interrupt(delay=random.Random(seed).random() * 0.01):
        started.wait()
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)
        sent.set()

    def use():
        for one in [pool.connect(), pool.connect()]:
            one.close()

    helper = Task(interrupt)
    try:
        started.set()
        while not sent.is_set():
            use()
        for _ in range(20):
            use()
    except KeyboardInterrupt:
        interrupts += 1
    helper.result()
    assert_whole(pool, dbapi, 2)
    pool.dispose()
answer(interrupts)
""",
        quiet=False,  # SQLAlchemy logs an interrupted close
    )
    assert int(interrupts) > 10  # the interpreter swallows those inside destructors


def test_signal_whose_handler_returns_does_not_end_the_wait(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=20)
held = pool.connect()
handled = threading.Event()
before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())

def disturb_and_release():
    wait_for_waiters(pool, 1)
    for _ in range(3):
        handled.clear()
        os.kill(os.getpid(), signal.SIGUSR1)
        # A signal that comes while the handler of the one before still runs stays
        # pending in the interpreter until the next.
        while not handled.wait(0.1):
            os.kill(os.getpid(), signal.SIGUSR1)
    wait_for_waiters(pool, 1)
    held.close()

helper = Task(disturb_and_release)
pool.connect().close()
helper.result()
assert_whole(pool, dbapi, 1)
""",
    )


def test_signal_does_not_lengthen_the_wait(run):
    run(
        """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=0.5)
held = pool.connect()
signal.signal(signal.SIGUSR1, lambda *_: None)
stop = threading.Event()

def disturb():
    while not stop.wait(0.02):
        os.kill(os.getpid(), signal.SIGUSR1)

helper = Task(disturb)
began = time.monotonic()
try:
    pool.connect()
except exc.TimeoutError:
    took = time.monotonic() - began
stop.set()
helper.result()
assert 0.45 < took < 10, took
held.close()
""",
    )


def test_exception_of_a_signal_handler_reaches_the_waiting_caller(run):
    run(
        """
class TimeLimit(Exception):
    pass

def limit(*_):
    raise TimeLimit

pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=None)
held = pool.connect()
signal.signal(signal.SIGALRM, limit)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    pool.connect()
except TimeLimit:
    pass
held.close()
pool._timeout = 10
assert_whole(pool, dbapi, 1)
""",
    )


def test_other_threads_run_while_one_waits(run):
    (ticks,) = run(
        """
sys.setswitchinterval(0.001)
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=1.0)
held = pool.connect()
ticks = 0
stop = threading.Event()

def tick():
    global ticks
    while not stop.wait(0.001):
        ticks += 1

ticker = Task(tick)
try:
    pool.connect()
except exc.TimeoutError:
    answer(ticks)
stop.set()
ticker.result()
held.close()
""",
    )
    assert int(ticks) > 10


def test_interpreter_ends_while_daemon_threads_wait(pool_class):
    done = run_script(
        PRELUDE
        + """
pool = cls(dbapi.connect, pool_size=1, max_overflow=0, timeout=None)
held = pool.connect()
tasks = [Task(pool.connect) for _ in range(4)]
wait_for_waiters(pool, 4)
""",
        name_of(pool_class),
    )
    assert (done.returncode, done.stderr) == (0, "")

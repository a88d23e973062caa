"""The fixtures for the tests of services, in suites that pytest runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINE = """
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

import poolproof

POOLS = [QueuePool, poolproof.Pool]


@pytest.fixture(params=POOLS, ids=["queue", "poolproof"])
def engine(request):
    made = sa.create_engine({url!r}, poolclass=request.param, **{more})
    yield made
    made.dispose()
"""


@pytest.fixture
def suite(pytester, pg):
    """Return a function that runs a suite in a process of its own."""
    pytester.makeini("[pytest]\naddopts = -p no:randomly -p no:cacheprovider\n")

    def run(source, *, url=None, more="{}"):
        url = (url or pg.url("psycopg2")).render_as_string(hide_password=False)
        pytester.makepyfile(ENGINE.format(url=url, more=more) + source)
        return pytester.runpytest_subprocess("-q", timeout=200)

    return run


def test_a_suite_that_uses_none_imports_neither_package_nor_sqlalchemy(pytester):
    pytester.makeini("[pytest]\naddopts = -p no:randomly -p no:cacheprovider\n")
    pytester.makepyfile(
        """
import sys


def test_it(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("poolproof")
    for name in ("poolproof", "sqlalchemy"):
        assert name not in sys.modules
"""
    )
    done = pytester.runpytest_subprocess("-q", "-W", "error", timeout=200)
    done.assert_outcomes(passed=1)


# --- leaks ----------------------------------------------------------------------------

LEAKING = """
import threading

watched = pytest.mark.usefixtures("assert_no_leaked_connections")
kept = []


@watched
def test_leaks(engine):
    kept.append(engine.connect())


@watched
def test_gives_back(engine):
    with engine.connect():
        pass


def test_looks_at_once(engine, assert_no_leaked_connections):
    with engine.connect() as connection:
        with pytest.raises(pytest.fail.Exception, match="A connection was not given"):
            assert_no_leaked_connections()
        connection.invalidate()
    assert_no_leaked_connections()


@watched
def test_detaches(engine):
    connection = engine.connect()
    connection.detach()
    kept.append(connection)


@pytest.fixture
def before(engine):
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def watch(before, request):
    # It begins to look once something is out.
    request.getfixturevalue("assert_no_leaked_connections")


@pytest.mark.usefixtures("watch")
def test_was_out_before(before):
    before.scalar(sa.text("select 1"))


@watched
def test_thread_gives_back_late(engine):
    connection = engine.connect()
    threading.Timer(0.1, connection.close).start()
"""


def test_a_connection_that_is_not_given_back_fails_the_test(suite):
    done = suite(LEAKING)
    done.assert_outcomes(passed=12, errors=2)
    # With CI in the environment pytest tells it all again in its summary.
    told = done.stdout.str().partition("short test summary")[0]
    taken = re.findall(r"  of (\w+) ?\S*, taken by thread MainThread at (.*)", told)
    assert [pool for pool, _ in taken] == ["QueuePool", "Pool"], told
    for _, where in taken:
        assert re.search(r"test_\w+\.py:\d+, in test_leaks$", where), where


# --- forks ----------------------------------------------------------------------------

FORKING = """
def test_after_a_fork(engine, fork_drill):
    def ask(number):
        with engine.connect() as connection:
            return connection.scalar(sa.text("select :n"), {"n": number})

    played = fork_drill(ask, children=3, calls=200, timeout=30)
    assert (played.processes, played.right) == (4, 800)
"""


@pytest.mark.fork
def test_processes_that_share_a_session_fail_it(suite):
    done = suite(FORKING)
    done.assert_outcomes(passed=1, failed=1)
    told = done.stdout.str()
    assert re.search(
        r"4 processes after a fork: \d+ right answers, \d+ wrong, \d+ errors, \d+ hung",
        told,
    )
    assert "FAILED" in told
    assert "test_after_a_fork[queue]" in told


@pytest.mark.fork
def test_each_way_to_be_wrong_is_told(suite):
    done = suite(
        """
import os, signal, time

parent = os.getpid()


def test_wrong(fork_drill):
    fork_drill(lambda n: n if os.getpid() == parent else -1, children=1, calls=7)


def test_raises(fork_drill):
    def ask(number):
        if os.getpid() != parent:
            raise OSError("first line\\nsecond")
        return number

    fork_drill(ask, children=1, calls=1)


def test_dies(fork_drill):
    def ask(number):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    fork_drill(ask, children=1)


def test_hangs(fork_drill):
    def ask(number):
        if os.getpid() != parent:
            time.sleep(600)
        return number

    fork_drill(ask, children=2, timeout=1)


def test_fails_in_the_parent_alone(fork_drill):
    def ask(number):
        if number >= 2_000_000:  # the parent's, in its thread
            pytest.fail("only here")
        return number

    fork_drill(ask, children=1, calls=2)


def test_is_wrong_before_the_fork(fork_drill):
    fork_drill(lambda n: n + 1)


@pytest.mark.parametrize("bad", [{"children": 0}, {"calls": 0}, {"timeout": 0}])
def test_refuses(fork_drill, bad):
    with pytest.raises(ValueError, match="1 or more"):
        fork_drill(lambda n: n, **bad)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no child is left, of any test
"""
    )
    done.assert_outcomes(passed=3, failed=6)
    told = done.stdout.str()
    for words in (
        "wrong: child 1 asked for 1000000, and got -1",
        "wrong: and 2 more",
        "errors: child 1: OSError: first line",
        "errors: child 1: it died before it had told anything",
        "hung: child 2",
        "errors: the parent: Failed: only here",
        "ask(0) returned 1 before anything was forked",
    ):
        assert words in told
    assert "second" not in told.split("short test summary")[0].split("errors:")[1][:60]


# --- faults on the way ----------------------------------------------------------------

FAULTS = """
import time


@pytest.fixture
def proxy(fault_proxy, engine):
    return fault_proxy(engine)


@pytest.fixture
def through(proxy, engine):
    made = sa.create_engine(proxy.url, poolclass=poolproof.Pool, pool_pre_ping=True)
    with made.connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1
    assert proxy.connections == 1
    yield made
    made.dispose()


@pytest.mark.parametrize("harm", ["drop", "reset", "inject"])
def test_pool_survives(proxy, through, harm):
    getattr(proxy, harm)()
    with through.connect() as connection:
        assert connection.scalar(sa.text("select 2")) == 2
    assert sum(through.pool.stats().discarded.values()) == 1


def test_mute(proxy, through):
    with through.connect() as connection:
        proxy.mute()
        with pytest.raises(sa.exc.DBAPIError), poolproof.deadline(0.2):
            connection.scalar(sa.text("select 3"))
    proxy.heal()
    with through.connect() as connection:
        assert connection.scalar(sa.text("select 4")) == 4


def test_delay(proxy, through):
    def took():
        begun = time.monotonic()
        with through.connect() as connection:
            connection.scalar(sa.text("select 5"))
        return time.monotonic() - begun

    proxy.delay(0.2)
    assert took() >= 0.4  # there and back
    proxy.heal()
    assert min(took() for _ in range(5)) < 0.4
    with pytest.raises(ValueError, match="0 s or more"):
        proxy.delay(-1)
"""


def test_the_proxy_does_what_it_is_told(suite):
    suite(FAULTS).assert_outcomes(passed=10)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("sqlite://", "a database of sqlite"),
        ("postgresql://app:geheim@word@db/app", "a second @"),
        ("nonsense", "not a database URL"),
    ],
)
def test_the_proxy_refuses_what_is_no_postgresql(given, words):
    from poolproof.drill.errors import UsageError
    from poolproof.testing.fault_proxy import FaultProxy

    with pytest.raises(UsageError, match=words) as caught:
        FaultProxy(given)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("postgres", "postgresql"),
        ("postgresql", "postgresql"),
        ("postgresql+psycopg", "postgresql+psycopg"),
    ],
)
def test_the_proxy_keeps_the_driver(pg, given, kept):
    from poolproof.testing.fault_proxy import FaultProxy

    url = pg.url("psycopg2").render_as_string(hide_password=False)
    with FaultProxy(url.replace("postgresql+psycopg2", given)) as proxy:
        assert proxy.url.drivername == kept


# --- the document ---------------------------------------------------------------------


def test_the_documents_suite_passes(pytester):
    page = (CHECKOUT / "docs" / "testing.md").read_text()
    (shop,) = re.findall(r"```python\n(# shop\.py\n.*?)```", page, re.DOTALL)
    (tests,) = re.findall(r"```python\n(# test_shop\.py\n.*?)```", page, re.DOTALL)
    pytester.makepyfile(shop=shop, test_shop=tests)
    pytester.makeini("[pytest]\naddopts = -p no:randomly -p no:cacheprovider\n")
    pytester.syspathinsert()
    os.environ.pop("DATABASE_URL", None)
    done = pytester.runpytest_subprocess("-q", timeout=200)
    done.assert_outcomes(passed=tests.count("\ndef test_"))

"""Parameters that functions make are asked for at each connecting, as the pool asks."""

from __future__ import annotations

import os
import threading
import time

import psycopg
import pytest
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import poolproof
from control.asking import as_text
from control.letting_in import ROTATING, asked_by_root, cut_off
from plugins.threads import Task, eventually
from poolproof import ControlError, Lease, LeaseTimeout
from poolproof.control.server import server_of

SECRET = "t0ken of a cloud"  # noqa: S105


@pytest.fixture
def change(real):
    """Return a function that changes the password of a role, which is "first" now."""

    def to(password):
        with asked_by_root(real) as session:
            session.execute(
                psycopg.sql.SQL("alter role {} password {}").format(
                    psycopg.sql.Identifier(ROTATING), password
                )
            )

    to("first")
    return to


class Tokens:
    """A source of passwords, as a cloud's: it may hang, raise, or give rubbish."""

    def __init__(self):
        self.calls = 0
        self.now = "first"
        self.fault = None
        self.hangs = threading.Event()
        self.hangs.set()

    def give(self):
        self.calls += 1
        self.hangs.wait(60)
        if self.fault is not None:
            raise self.fault
        return self.now

    def listen(self, _dialect, record, _args, keywords):
        assert record.info == {}
        keywords["password"] = self.give()


@pytest.fixture
def tokens():
    """Return a source of passwords, which hangs no longer than the test."""
    made = Tokens()
    yield made
    made.hangs.set()


@pytest.fixture(params=["listener", "control_dsn"])
def ask(request, real, tokens):
    """Return a function that makes a lease whose password a function gives."""
    url = real.url("psycopg2").set(username=ROTATING, query={})
    made = []

    def lease(name, **options):
        if request.param == "listener":
            engine = create_engine(url, poolclass=poolproof.Pool)
            event.listen(engine, "do_connect", tokens.listen)
        else:

            def dsn():
                return url.set(password=tokens.give())

            engine = create_engine(url, poolclass=poolproof.Pool)
            options["control_dsn"] = dsn
        made.append(engine)
        return Lease(engine, name, **options)

    yield lease
    for engine in made:
        engine.dispose()


def test_a_lease_goes_on_with_the_password_of_now(real, change, tokens, ask):
    with ask("rotated", ttl=9) as lease:
        change("second")
        tokens.now = "second"
        cut_off(real, ROTATING)
        before = lease.stats().renewals
        eventually(lambda: lease.stats().renewals > before + 1, seconds=60)
        lease.check()
    assert tokens.calls >= 2


# An attempt that hangs takes half of the time that is left: there is one.
@pytest.mark.parametrize(
    ("fault", "blips"), [(RuntimeError(SECRET), 2), (SystemExit(SECRET), 2), (None, 1)]
)
@pytest.mark.quick("listener")
def test_a_function_that_fails_for_a_while_costs_no_lease(
    real, change, tokens, ask, fault, blips
):
    with ask("blip", ttl=12) as lease:
        tokens.fault = fault
        if fault is None:
            tokens.hangs.clear()
        cut_off(real, ROTATING)
        eventually(lambda: lease.stats().blips >= blips, seconds=60)
        why = lease._native.trouble()[2]
        assert SECRET not in why
        assert (type(fault).__name__ if fault else "not enough") in why
        tokens.fault = None
        tokens.hangs.set()
        before = lease.stats().renewals
        eventually(lambda: lease.stats().renewals > before, seconds=60)
        lease.check()


def test_a_function_that_raises_is_named_without_its_words(change, tokens, ask):
    tokens.fault = ValueError(SECRET)
    with pytest.raises(ControlError, match="ValueError") as caught:
        ask("raises", timeout=0.2).acquire()
    assert SECRET not in repr(caught.value) + str(caught.value.__context__)
    assert caught.value.kind == "server"
    assert "control.test_functions" in str(caught.value)


def test_a_function_that_hangs_is_not_waited_for(change, tokens, ask):
    tokens.hangs.clear()
    lease = ask("hangs", timeout=0.5)
    with pytest.raises(ControlError, match="the function that gives its parameters"):
        lease.acquire()
    with pytest.raises(ControlError):
        lease.acquire()
    calls = tokens.calls
    assert calls == 1  # of one that hangs there is one
    tokens.hangs.set()
    # A busy machine lets nobody in within half a second.
    with ask("hangs", timeout=60) as lease:
        lease.check()
    assert tokens.calls > calls


@pytest.mark.parametrize(
    "rubbish", [None, 7, b"\xff", f"host=h password='{SECRET}", ""]
)
def test_rubbish_is_refused_at_once_and_not_quoted(rubbish, engine_of_nothing):
    lease = Lease(engine_of_nothing, "rubbish", control_dsn=lambda: rubbish)
    began = time.monotonic()
    with pytest.raises(ControlError, match="control_dsn") as caught:
        lease.acquire()
    assert time.monotonic() - began < lease._timeout
    assert SECRET not in str(caught.value)
    assert caught.value.kind == "parameters"


@pytest.fixture
def engine_of_nothing():
    """Return an engine that connects to nothing."""
    engine = create_engine("postgresql+psycopg2://u@127.0.0.1:1/d", poolclass=NullPool)
    yield engine
    engine.dispose()


def test_a_listener_that_connects_by_itself_is_refused_and_its_connection_closed(
    real,
):
    made = []

    def connect(_dialect, _record, _args, keywords):
        made.append(psycopg.connect(_dsn(real)))
        return made[-1]

    engine = create_engine(real.url("psycopg"))
    event.listen(engine, "do_connect", connect)
    with pytest.raises(ControlError, match=r"connects by itself.*control_dsn="):
        Lease(engine, "own").acquire()
    assert made
    assert all(connection.closed for connection in made)


def _dsn(cluster):
    return as_text({"host": cluster.host, "port": cluster.port, "user": "postgres"})


def test_a_listener_that_was_added_after_the_first_lease_is_called(real):
    engine = create_engine(real.url("psycopg2"))
    called = []
    with Lease(engine, "earlier") as lease:
        lease.check()
    event.listen(engine, "do_connect", lambda *_: called.append(1))
    with Lease(engine, "later") as lease:
        lease.check()
    assert called


def test_a_listener_may_lead_to_another_server(real):
    engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")

    @event.listens_for(engine, "do_connect")
    def lead(_dialect, _record, args, keywords):
        keywords.update(
            host=real.host, port=real.port, user="postgres", dbname="postgres"
        )

    with Lease(engine, "led") as lease:
        lease.check()
    # What the pool is given is its own: nothing of it was changed.
    with pytest.raises(exc.ArgumentError, match="creator"):
        Lease(create_engine("postgresql://", creator=lambda: None), "x").acquire()


def test_the_password_of_asyncpg_may_be_a_function(real, change, tokens):
    url = real.url("asyncpg").set(username=ROTATING, query={})
    engine = create_async_engine(url, connect_args={"password": tokens.give})
    with Lease(engine, "asyncpg", ttl=9) as lease:
        change("second")
        tokens.now = "second"
        cut_off(real, ROTATING)
        before = lease.stats().renewals
        eventually(lambda: lease.stats().renewals > before + 1, seconds=60)
    tokens.now = 5
    cut_off(real, ROTATING)
    with pytest.raises(ControlError, match="must return text"):
        Lease(engine, "asyncpg", timeout=1).acquire()


def test_a_child_asks_anew_whatever_its_parent_was_about(change, tokens, ask):
    lease = ask("parent", ttl=20)
    tokens.hangs.clear()
    asking = threading.Thread(target=_acquire, args=(lease,))
    asking.start()
    eventually(lambda: tokens.calls == 1)
    pid = os.fork()
    if pid == 0:
        os._exit(_child(tokens, ask))
    tokens.hangs.set()
    asking.join(60)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lease.check()
    lease.release()


def _acquire(lease):
    lease.acquire()


def _child(tokens, ask):
    import signal

    signal.alarm(60)
    tokens.hangs = threading.Event()
    tokens.hangs.set()
    before = tokens.calls
    try:
        with ask("child") as lease:
            lease.check()
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        return 2
    return 0 if tokens.calls > before else 1


@pytest.mark.quick("listener")
def test_no_thread_of_python_is_a_blip(real, change, tokens, ask, monkeypatch):
    """The notifier has none either, at first."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with ask("threads", ttl=20) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            cut_off(real, ROTATING)
            eventually(lambda: lease.stats().blips > 0, seconds=60)
            assert "thread" in lease._native.trouble()[2]
        before = lease.stats().renewals
        eventually(lambda: lease.stats().renewals > before, seconds=60)


@pytest.mark.quick("listener")
def test_another_holder_is_told_as_ever(change, tokens, ask):
    with ask("held"), pytest.raises(LeaseTimeout):
        ask("held", timeout=5).acquire()  # a busy machine answers none in a second


def test_the_backends_of_an_engine_with_a_listener_can_be_ended(real, tokens):
    url = real.url("psycopg2")
    engine = create_engine(url, poolclass=poolproof.Pool, end_stranded_backends=True)
    event.listen(engine, "do_connect", lambda *_: tokens.give() and None)
    with engine.connect() as connection:
        pid = connection.scalar(text("select pg_backend_pid()"))
        entry = connection.connection._connection_record
        eventually(lambda: entry.backend.is_recognised is not None)
        assert (entry.backend.pid, entry.backend.is_recognised) == (pid, True)
    engine.dispose()


def test_threads_that_begin_at_once_have_one_server_whose_questions_are_heard():
    for _ in range(20):
        engine = create_engine("postgresql+psycopg2://u@127.0.0.1:1/d")
        event.listen(engine, "do_connect", lambda *_: None)
        start = threading.Barrier(8)

        def ask(engine=engine, start=start):
            start.wait(20)
            return server_of(engine)

        tasks = [Task(ask) for _ in range(8)]
        [first, *others] = [task.result() for task in tasks]
        assert all(other is first for other in others)
        engine.dispose()


def test_a_coroutine_function_is_refused():
    async def dsn():
        return ""

    engine = create_engine("postgresql+psycopg2://h/d")
    with pytest.raises(exc.ArgumentError, match="coroutine"):
        Lease(engine, "x", control_dsn=dsn)
    with pytest.raises(exc.ArgumentError, match="coroutine"):
        create_engine(
            "postgresql+psycopg2://h/d", poolclass=poolproof.Pool, control_dsn=dsn
        )

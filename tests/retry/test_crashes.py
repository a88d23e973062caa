"""A server that crashes gives the numbers of lost transactions away again."""

from __future__ import annotations

import signal

import psutil
import pytest
from sqlalchemy import NullPool, create_engine, event, exc, text

import poolproof
from plugins.cluster import Cluster
from plugins.threads import eventually
from poolproof.retry import commit_status

QUICK = poolproof.Backoff(first=0.001, most=0.01)
INSERT = text("insert into work values (:n)")
NUMBER = text("select cast(cast(pg_current_xact_id() as text) as bigint)")


class Server(Cluster):
    """A server that loses what it has not written down."""

    def __init__(self, pg: Cluster) -> None:
        super().__init__(
            pg.binaries, package=pg.package, settings={"wal_writer_delay": "10s"}
        )

    def crash(self) -> None:
        """Kill all of its processes at one stroke, and start it again."""
        postmaster = psutil.Process(self._postmaster.pid)
        postmaster.suspend()  # so that it starts no more of them
        children = postmaster.children()
        for one in (*children, postmaster):
            one.kill()
        self._postmaster.wait(10)
        psutil.wait_procs(children, 10)
        (self.data / "postmaster.pid").unlink()
        self._start_again()

    def restart(self) -> None:
        """Stop it in order, and start it again."""
        self._postmaster.send_signal(signal.SIGINT)
        self._postmaster.wait(30)
        self._start_again()

    def _start_again(self) -> None:
        self._launch()
        assert self._became_ready(), self.log.read_text()


@pytest.fixture(autouse=True)
def _no_leaks():
    """Do not look: the server's process is another one after each crash."""


@pytest.fixture(scope="module")
def server(pg):
    made = Server(pg)
    try:
        made.start()
        engine = engine_of(made, "psycopg")
        with engine.begin() as connection:
            connection.execute(text("create table work (n integer)"))
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def _written_down(server):
    with engine_of(server, "psycopg").connect() as connection:
        autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
        autocommit.execute(text("truncate work"))
        autocommit.execute(text("checkpoint"))


def engine_of(server, driver):
    """Make an engine with nothing in its pool."""
    return create_engine(server.url(driver), poolclass=NullPool)


def count(server) -> int:
    with engine_of(server, "psycopg").connect() as connection:
        return connection.scalar(text("select count(*) from work where n = 1"))


def use_up_to(server, xid: int) -> None:
    """Commit other transactions until one has had the number."""
    numbers = [0]
    with engine_of(server, "psycopg").connect() as connection:
        while numbers[-1] < xid:
            connection.execute(INSERT, {"n": 2})
            numbers.append(connection.scalar(NUMBER))
            connection.commit()
    assert xid in numbers


def marked(connection) -> commit_status.Mark:
    """Begin a transaction, and mark it."""
    connection.execute(INSERT, {"n": 1})
    return commit_status.mark(connection)


def status(server, mark: commit_status.Mark) -> str | None:
    with engine_of(server, "psycopg").connect() as connection:
        autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
        autocommit.execute(text("set time zone 'Asia/Kolkata'"))
        return commit_status._status(autocommit, mark)


def committed(server) -> commit_status.Mark:
    """Commit a transaction, on disk."""
    with engine_of(server, "psycopg").connect() as connection:
        connection.execute(text("set local synchronous_commit = on"))
        mark = marked(connection)
        connection.commit()
    return mark


@pytest.mark.quick("psycopg2")
def test_commit_of_another_with_the_same_number_is_not_taken_for_ours(
    server, make_engine, driver
):
    engine = make_engine(server.url(driver))
    marks = []

    def unit(connection):
        connection.execute(INSERT, {"n": 1})

    @event.listens_for(engine, "commit")
    def crash(connection):
        if not marks:
            marks.append(connection.scalar(NUMBER))
            server.crash()
            use_up_to(server, marks[0])

    with pytest.raises(poolproof.CommitOutcomeUnknown) as caught:
        poolproof.run_transaction(
            engine, unit, verify_commit=True, backoff=QUICK, deadline=40
        )
    assert caught.value.xid == marks[0]
    assert count(server) == 0


@pytest.mark.quick("psycopg2")
def test_transaction_that_a_crash_has_lost_is_done_again(server, make_engine, driver):
    engine = make_engine(server.url(driver))
    crashes = []

    @event.listens_for(engine, "commit")
    def crash(_):
        if not crashes:
            crashes.append(server.crash())

    poolproof.run_transaction(
        engine,
        lambda connection: connection.execute(INSERT, {"n": 1}) and None,
        verify_commit=True,
        backoff=QUICK,
        deadline=40,
    )
    assert count(server) == 1


def test_transaction_that_crash_and_reuse_have_ended_is_known_not_to_be_done(server):
    with engine_of(server, "psycopg").connect() as connection:
        mark = marked(connection)
        server.crash()
        connection.invalidate()
    with engine_of(server, "psycopg").connect() as connection:
        connection.execute(INSERT, {"n": 2})
        assert connection.scalar(NUMBER) == mark.xid
        # Somebody else's, which nobody may take for ours, or end.
        assert status(server, mark) == "unknown"
        connection.rollback()
    assert status(server, mark) == "aborted"


def test_commit_on_disk_before_a_crash_is_unknown(server):
    mark = committed(server)
    assert status(server, mark) == "committed"
    server.crash()
    assert count(server) == 1
    assert status(server, mark) == "unknown"


def test_commit_before_the_crash_of_one_session_is_unknown(server):
    """The postmaster outlives it, and starts everything else anew."""
    mark = committed(server)
    with engine_of(server, "psycopg").connect() as connection:
        pid = connection.scalar(text("select pg_backend_pid()"))
        psutil.Process(pid).kill()
        connection.invalidate()

    def is_back() -> bool:
        try:
            return status(server, mark) == "unknown"
        except exc.OperationalError:  # refused while it recovers
            return False

    eventually(is_back)
    assert count(server) == 1


def test_commit_before_a_clean_restart_is_known(server):
    mark = committed(server)
    server.restart()
    assert status(server, mark) == "committed"

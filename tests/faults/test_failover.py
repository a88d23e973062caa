"""What strikes every connection at once: crash, shutdown, failover to a standby."""

from __future__ import annotations

import contextlib
import os
import signal

import psycopg
import pytest
import sqlalchemy as sa

import poolproof
from plugins.cluster import Cluster
from plugins.harm import driver_connections, first_error
from plugins.server import DRIVERS
from plugins.threads import eventually
from poolproof import Fault

pytestmark = pytest.mark.slow

SELECT = sa.text("select 42")


class Machine:
    """A server of one test's own, which may be crashed, shut down and demoted."""

    def __init__(self, cluster):
        self.cluster = cluster

    def connect(self):
        url = self.cluster.url("psycopg").set(drivername="postgresql")
        return psycopg.connect(
            url.render_as_string(hide_password=False), autocommit=True
        )

    def demote(self):
        """Stop it and start it as a standby: what a failover leaves at an address."""
        postmaster = self.cluster._postmaster
        postmaster.send_signal(signal.SIGINT)
        postmaster.wait(20)
        standby = self.cluster.data / "standby.signal"
        standby.touch()
        self.cluster.own(standby)
        self.cluster._launch()
        self.wait_until_up()

    def wait_until_up(self):
        def up():
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return True
            return False

        eventually(up, seconds=30, what="the server comes up")

    def wait_until_gone(self, pid):
        def gone():
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            return False

        eventually(gone, what=f"backend {pid} ends")

    def shut_down_smartly(self):
        """Have it refuse new connections while somebody is still connected."""
        self.cluster._postmaster.send_signal(signal.SIGTERM)

        def refuses():
            try:
                self.connect().close()
            except psycopg.OperationalError:
                return True
            return False

        eventually(refuses, what="the server refuses connections")


@pytest.fixture
def machine(pg):
    cluster = Cluster(pg.binaries)
    try:
        cluster.start()
        yield Machine(cluster)
    finally:
        cluster.stop()


@pytest.fixture
def engine_of(machine):
    made = []

    def make(driver, **options):
        engine = sa.create_engine(machine.cluster.url(driver), **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


def test_after_a_failover_the_first_write_costs_the_generation(
    machine, engine_of, events, monkeypatch
):
    with machine.connect() as admin:
        admin.execute("create table t (n integer)")
    engines = [
        engine_of(driver, pool_size=2, poolclass=poolproof.Pool) for driver in DRIVERS
    ]
    for engine in engines:
        driver_connections(engine, 2)  # which could write
    machine.demote()
    # The sessions that were opened since refuse writes from their start.
    monkeypatch.setattr("poolproof.faults.opened._AGAIN_S", 0.0)
    for engine in engines:
        before = driver_connections(engine, 2)
        with engine.connect() as connection:
            insert = sa.text("insert into t values (1)")
            first_error(lambda c=connection, i=insert: c.execute(i))
        event = events.pop()
        assert (event.fault, event.sqlstate) == (Fault.READ_ONLY, "25006")
        assert (event.verdict.cost, event.verdict.retry) == ("generation", "whole_unit")
        assert not set(before) & set(driver_connections(engine, 2))
    assert events == []


def test_a_standby_forgives_nothing_that_the_application_asked_for_itself(
    machine, engine_of, events
):
    with machine.connect() as admin:
        admin.execute("create table t (n integer)")
    machine.demote()
    for driver in DRIVERS:
        engine = engine_of(driver, pool_size=1)
        poolproof.guard(engine)
        with engine.connect() as plain:
            connection = plain.execution_options(postgresql_readonly=True)
            insert = sa.text("insert into t values (1)")
            first_error(lambda c=connection, i=insert: c.execute(i))
    assert events == []


def test_a_crash_of_another_backend_ends_every_session(machine, engine_of, events):
    # The server says 57P02 only in a warning, which no driver makes an error of: what
    # reaches us is the end of the connection.
    for driver in DRIVERS:
        engine = engine_of(driver, pool_size=2)
        poolproof.guard(engine)
        before = driver_connections(engine, 2)
        with engine.connect() as connection:
            connection.execute(SELECT)
            pid = connection.execute(sa.text("select pg_backend_pid()")).scalar()
            with machine.connect() as victim:
                os.kill(victim.info.backend_pid, signal.SIGKILL)
                machine.wait_until_gone(pid)
                first_error(lambda c=connection: c.execute(SELECT))
        event = events.pop()
        assert (event.fault, event.backend_pid) == (Fault.CONNECTION_LOST, pid)
        assert (event.verdict.cost, event.verdict.retry) == ("generation", "whole_unit")
        machine.wait_until_up()
        assert not set(before) & set(driver_connections(engine, 2))


def test_a_server_that_shuts_down_refuses_as_starting_up(machine, engine_of, events):
    with machine.connect():
        machine.shut_down_smartly()
        for driver in DRIVERS:
            engine = engine_of(driver)
            poolproof.guard(engine)
            error = first_error(engine.connect)
            event = events.pop()
            assert event.fault is Fault.STARTING_UP, driver
            assert (event.verdict.cost, event.verdict.retry) == ("nothing", "reconnect")
            assert poolproof.classify(error).fault is Fault.STARTING_UP

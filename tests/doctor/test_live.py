"""4xx: processes that share a backend, holders, orphans, leases; and none of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from sqlalchemy import text

import poolproof
from plugins.processes import ForkedChild
from plugins.threads import eventually
from poolproof.leases.lease import Lease


class Child:
    """A forked child that has the engine's inherited connection, until it is let go."""

    def __init__(self, engine):
        self._reading, writing = os.pipe()
        ready_reading, ready = os.pipe()

        def hold():
            os.close(writing)
            os.write(ready, b"x")
            os.read(self._reading, 1)

        self.child = ForkedChild(hold)
        os.close(ready)
        os.read(ready_reading, 1)
        os.close(ready_reading)
        self._writing = writing

    def __enter__(self):
        return self.child

    def __exit__(self, *_):
        os.close(self._writing)
        self.child.report()
        os.close(self._reading)


def test_one_backend_driven_by_two_processes_is_found_with_both(
    look, make_engine, pg_url
):
    engine = make_engine(pg_url("psycopg2", application_name="doctor-shared"))
    with engine.connect() as connection:
        backend = connection.scalar(text("select pg_backend_pid()"))
    with Child(engine) as child:
        finding = look(engine, "PP401")
    assert (finding.state, finding.severity) == ("found", "error")
    (line,) = [one for one in finding.evidence if one.startswith(f"backend {backend}:")]
    assert f"{os.getpid()} (" in line
    assert f"{child.pid} (" in line


def test_an_inherited_connection_that_is_dead_is_no_shared_backend(
    look, make_engine, pg_url
):
    url = pg_url("psycopg2", application_name="doctor-severed")
    engine = make_engine(url, poolclass=poolproof.Pool)
    with engine.connect() as connection:
        backend = connection.scalar(text("select pg_backend_pid()"))
        with Child(engine):
            finding = look(engine, "PP401")
    lines = [one for one in finding.evidence if one.startswith(f"backend {backend}:")]
    assert lines == []  # the child has those of the tests' own observer, too
    assert look(engine, "PP401").state == "fine"


def test_over_a_unix_socket_it_is_skipped_and_not_fine(look, pg_url):
    found = look(pg_url("psycopg2", unix=True), "PP401", "PP403")
    assert {one.state for one in found.values()} == {"skipped"}


def test_who_holds_a_connection_and_asks_nothing_is_named(
    look, make_engine, pg_url, role, url_of
):
    name = role()
    url = url_of(name).update_query_dict({"application_name": "checkout-page"})
    engine = make_engine(url)
    assert look(engine, "PP402", held_s=0.1).state == "fine"
    with engine.connect() as connection:
        connection.execute(text("select 1"))

        def held():
            finding = look(url, "PP402", held_s=0.1)
            return finding if finding.state == "found" else None

        finding = eventually(held)
        assert finding.severity == "warning"
        assert "checkout-page: backend" in finding.summary
        assert "idle in transaction" in finding.summary
        assert look(url, "PP402", held_s=1000).state == "fine"


def test_what_this_process_holds_is_named_by_scope_and_thread(
    look, make_engine, pg_url
):
    url = pg_url("psycopg2", application_name="doctor-scoped")
    engine = make_engine(url, poolclass=poolproof.Pool)
    with poolproof.scope("nightly"), engine.connect() as connection:
        connection.exec_driver_sql("select 1")
        connection.rollback()  # out of the server's sight: no transaction is open

        def held():
            finding = look(engine, "PP402", held_s=0.1)
            return [one for one in finding.evidence if "nightly: process" in one]

        lines = eventually(held)
    assert "MainThread" in lines[0]


SLEEPER = """
import psycopg2, sys
connection = psycopg2.connect(sys.argv[1])
cursor = connection.cursor()
cursor.execute("select pg_backend_pid()")
print(cursor.fetchone()[0], flush=True)
cursor.execute("select pg_sleep(300)")
"""


def test_a_backend_whose_client_was_killed_is_an_orphan(look, role, url_of, observer):
    url = url_of(role()).update_query_dict({"application_name": "doctor-orphan"})
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    client = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLEEPER), dsn], stdout=subprocess.PIPE
    )
    try:
        backend = int(client.stdout.readline())
        active = "select state from pg_stat_activity where pid = %s"
        assert eventually(lambda: observer.value(active, backend) == "active")
        assert look(url, "PP403").state == "fine"
        client.send_signal(signal.SIGKILL)
        client.wait()

        def orphaned():
            finding = look(url, "PP403")
            return finding if finding.state == "found" else None

        finding = eventually(orphaned)
        assert finding.severity == "warning"
        assert f"backend {backend}" in finding.summary
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
        observer.end(backend)


@pytest.fixture
def lease_url(observer, pg_url):
    """Return the URL of a database of its own, which has no leases yet."""
    name = f"leases_{os.getpid()}"
    observer.rows(f"drop database if exists {name} with (force)")
    observer.rows(f"create database {name}")
    yield pg_url("psycopg2").set(database=name)
    observer.rows(f"drop database if exists {name} with (force)")


HOLDER = """
import sys, time
from sqlalchemy import create_engine
from poolproof import Lease
lease = Lease(create_engine(sys.argv[1]), "nightly", ttl=3600).acquire()
print("held", flush=True)
time.sleep(300)
"""


def test_leases_near_their_end_and_without_their_holder_are_seen(
    look, make_engine, lease_url
):
    engine = make_engine(lease_url)
    assert "no table" in look(engine, "PP404").summary
    with Lease(engine, "well", ttl=600):
        assert look(engine, "PP404").state == "fine"
        with engine.begin() as connection:
            connection.execute(
                text(
                    "update poolproof_lease set renewed_at = now() - interval '1 h',"
                    " expires_at = now() + interval '1 min' where name = 'well'"
                )
            )
        late = look(engine, "PP404")
    assert late.severity == "warning"
    assert "well: " in late.summary
    assert "left of" in late.summary
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c", HOLDER),
            lease_url.render_as_string(hide_password=False),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        assert look(engine, "PP404").state == "fine"
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    gone = look(engine, "PP404")
    assert f"nightly: its holder, process {holder.pid}" in gone.summary


def test_a_thread_that_holds_two_connections_is_seen(look, make_engine, pg_url):
    url = pg_url("psycopg2", application_name="doctor-double")
    engine = make_engine(url, poolclass=poolproof.Pool)
    with poolproof.scope("report"), engine.connect() as first:
        first.exec_driver_sql("select 1")
        assert look(engine, "PP405").state == "fine"
        with engine.connect() as second:
            second.exec_driver_sql("select 1")
            finding = look(engine, "PP405")
    assert finding.severity == "warning"
    assert "report: process" in finding.summary
    assert "MainThread" in finding.summary
    assert "2 connections" in finding.summary
    other = make_engine(url)
    assert look(other, "PP405").state == "skipped"


HOLDERS = """
import sys, time
from sqlalchemy import create_engine
import poolproof
engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
with poolproof.scope("checkout-page"):
    one, two = engine.connect(), engine.connect()
    for each in (one, two):
        each.exec_driver_sql("select 1")
        each.rollback()
time.sleep(1.5)
print("holds", flush=True)
time.sleep(300)
"""


def test_who_holds_in_another_process_is_known_by_its_metrics(
    look, pg_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("POOLPROOF_METRICS_DIR", str(tmp_path / "metrics"))
    url = pg_url("psycopg2", application_name="doctor-elsewhere")
    text = url.render_as_string(hide_password=False)
    assert look(url, "PP405").state == "skipped"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDERS, text], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"holds\n"

        def double():
            finding = look(url, "PP405")
            return finding if finding.state == "found" else None

        finding = eventually(double)
        assert f"checkout-page: process {holder.pid}, MainThread" in finding.summary
        idle = look(url, "PP402", held_s=0.1)
        assert any("checkout-page: process" in line for line in idle.evidence)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert look(url, "PP405").state == "fine"

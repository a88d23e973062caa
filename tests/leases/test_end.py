"""What becomes of a lease when its process ends, is stopped, or forks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import psutil
import pytest
from sqlalchemy import text

import poolproof
from plugins.processes import run_in_fork
from plugins.threads import eventually
from poolproof import Heartbeat, Lease, LeaseForked
from poolproof.leases.table import LeaseTable

HOLDER = """
    import ctypes, os, signal, sys, time
    from sqlalchemy import create_engine
    import poolproof

    engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
    lease = poolproof.Lease(engine, sys.argv[2], ttl=float(sys.argv[3])).acquire()
    print(lease.fence)
"""
HELD_GIL = (
    HOLDER
    + """
    ctypes.PyDLL(None).sleep(int(sys.argv[4]))
    lease.check()
    print("still")
    lease.release()
"""
)


def shown(url):
    return url.render_as_string(hide_password=False)


@contextlib.contextmanager
def row_locked(engine, name):
    """Keep a lease from being given back."""
    with engine.begin() as connection:
        query = text("select 1 from poolproof_lease where name = :name for update")
        connection.execute(query, {"name": name})
        yield


def test_the_interpreter_s_end_gives_it_back(pg_url, program, name, row):
    holder = program(HOLDER, shown(pg_url("psycopg2")), name, "600")
    assert int(holder.line()) > 0
    assert holder.wait() == 0
    assert row(name)["token"] is None


WAITING_RELEASES = """
    select count(*) from pg_stat_activity
    where wait_event_type = 'Lock' and query like 'UPDATE%%poolproof_lease%%'
"""
FORGOTTEN = (
    HOLDER
    + """
    sys.stdin.readline()
    del lease
"""
)


def test_the_interpreter_s_end_waits_for_a_lease_that_nobody_has_any_more(
    pg_url, program, engine, name, row
):
    holder = program(FORGOTTEN, shown(pg_url("psycopg2")), name, "600")
    assert int(holder.line()) > 0
    with row_locked(engine, name):
        holder.process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(1)
    assert holder.wait() == 0
    assert row(name)["token"] is None


def test_ctrl_c_ends_the_wait_at_the_interpreter_s_end_in_silence(
    pg_url, program, engine, name, observer
):
    source = HOLDER + "    os.dup2(1, 2); sys.stdin.readline()"
    holder = program(source, shown(pg_url("psycopg2")), name, "600")
    assert int(holder.line()) > 0
    with row_locked(engine, name):
        holder.process.stdin.close()
        eventually(lambda: observer.value(WAITING_RELEASES), what="a release")
        holder.send(signal.SIGINT)
        assert holder.line() == ""  # not a word, on standard error either
        assert holder.wait() == 0


def test_sigterm_gives_it_back_though_the_interpreter_is_stuck(
    pg_url, program, name, row
):
    holder = program(HELD_GIL, shown(pg_url("psycopg2")), name, "600", "60")
    assert int(holder.line()) > 0
    holder.send(signal.SIGTERM)
    assert holder.wait() == -signal.SIGTERM
    assert row(name)["token"] is None


TOLD_TO_END = """
    import os, signal, sys
    from sqlalchemy import create_engine
    import poolproof

    def page(lease):
        print("paged", flush=True)

    engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
    held = poolproof.Lease(engine, sys.argv[2], ttl=600, on_lost=page).acquire()
    # The release cannot pass it: the process goes on for a while after the signal.
    blocker = engine.raw_connection()
    blocker.cursor().execute(
        "select 1 from poolproof_lease where name = %s for update", (sys.argv[2],)
    )
    os.kill(os.getpid(), signal.SIGTERM)
    print(held.lost.wait(20), flush=True)
    try:
        held.check()
    except poolproof.LeaseLost as error:
        print(error.reason, flush=True)
    while True:
        pass
"""


def test_sigterm_sets_lost_and_raises_no_alarm(pg_url, program, name):
    """The notifier has a second for it, and sets `lost` right before it would call."""
    holder = program(TOLD_TO_END, shown(pg_url("psycopg2")), name)
    assert holder.line() == "True"
    assert holder.line() == "this process was told to end (SIGTERM)"
    assert holder.line() == ""  # its end
    assert holder.wait() == -signal.SIGTERM


def test_sigterm_is_left_to_an_application_that_handles_it(pg_url, program, name, row):
    handler = """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    """
    source = (
        HOLDER.replace("    engine =", handler + "\n    engine =")
        + """
    time.sleep(60)
    """
    )
    holder = program(source, shown(pg_url("psycopg2")), name, "600")
    assert int(holder.line()) > 0
    holder.send(signal.SIGTERM)
    assert holder.wait() == 7
    assert row(name)["token"] is None  # at the interpreter's end


def test_a_child_of_a_holder_ends_by_sigterm_and_gives_nothing_back(
    pg_url, program, name, row
):
    source = (
        HOLDER
        + """
    pid = os.fork()
    if not pid:
        time.sleep(60)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    lease.check()
    sys.stdin.read()
    """
    )
    holder = program(source, shown(pg_url("psycopg2")), name, "600")
    assert int(holder.line()) > 0
    assert int(holder.line()) == -signal.SIGTERM
    assert row(name)["live"]


def test_a_killed_holder_s_lease_expires(pg_url, program, engine, name):
    holder = program(HELD_GIL, shown(pg_url("psycopg2")), name, "1", "60")
    fence = int(holder.line())
    holder.send(signal.SIGKILL)
    with Lease(engine, name) as lease:
        assert lease.fence > fence


def test_the_interpreter_may_be_held_for_longer_than_the_ttl(
    pg_url, program, name, row
):
    """By C code that keeps the GIL: nothing of Python runs, and it is renewed."""
    holder = program(HELD_GIL, shown(pg_url("psycopg2")), name, "3", "5")
    assert int(holder.line()) > 0
    assert holder.line() == "still"
    assert holder.wait() == 0


@pytest.mark.fork
def test_a_child_does_not_hold_it_and_the_parent_goes_on(engine, name, row):
    with Lease(engine, name, ttl=3) as lease:

        def child():
            with pytest.raises(LeaseForked, match=f"process {os.getppid()} has it"):
                lease.check()
            with pytest.raises(LeaseForked):
                lease.guard(None)
            with pytest.raises(LeaseForked):
                lease.stats()
            lease.release()
            lease.touch()
            with pytest.raises(LeaseForked):
                _ = lease.fence
            with pytest.raises(poolproof.LeaseTimeout):
                Lease(engine, name, timeout=0).acquire()
            with Lease(engine, name + " of the child") as own:
                own.check()
            return own.fence

        report = run_in_fork(child)
        report.assert_silent()
        assert report.result > lease.fence
        renewals = lease.stats().renewals
        while lease.stats().renewals < renewals + 3:
            lease.check()
        assert row(name)["live"]
        assert lease.stats().blips == 0


@pytest.mark.fork
def test_a_child_has_no_connection_of_the_control_plane(
    pg_url, make_engine, name, observer
):
    """They are severed in the fork, as all others are."""
    engine = make_engine(pg_url("psycopg2", application_name="severed"))

    def ports():
        return {one.laddr.port for one in psutil.Process().net_connections("tcp")}

    with Lease(engine, name):
        found = observer.rows(
            "select client_port from pg_stat_activity where application_name = %s",
            "severed poolproof-control",
        )
        ours = {port for (port,) in found}
        assert ours
        assert ours <= ports()
        assert not ours & run_in_fork(ports).assert_silent().result


@pytest.mark.fork
def test_leaving_the_block_in_a_child_is_silent(engine, name, row):
    with Lease(engine, name) as lease:

        def child():
            lease.__exit__(None, None, None)

        run_in_fork(child).assert_silent()
        assert row(name)["live"]


@pytest.mark.fork
def test_a_heartbeat_stays_with_the_parent(engine):
    with Heartbeat(engine, "select 1", every=0.1) as beating:

        def child():
            with pytest.raises(LeaseForked):
                beating.beat()
            beating.stop()

        run_in_fork(child).assert_silent()
        before = beating.stats().beats
        while beating.stats().beats == before:
            pass


@pytest.mark.fork
def test_in_a_child_no_lock_that_the_notifier_held_is_waited_for(engine, name):
    """Of Python's objects; src/control/fork_tests.rs has the locks of the core."""
    with Lease(engine, name) as lease, lease.lost._cond:

        def child():
            assert not lease.lost.wait(0.01)
            lease.lost.set()
            return repr(lease)

        report = run_in_fork(child, seconds=20).assert_silent()
        assert report.result == f"<Lease {name!r} of process {os.getpid()}>"
        assert not lease.lost.is_set()


@pytest.mark.fork
def test_a_child_reads_a_table_that_its_parent_has_described(pg_url):
    table = LeaseTable(shown(pg_url("psycopg2").set(drivername="postgresql")))
    table.create()
    table.entries()
    run_in_fork(table.entries).assert_silent()

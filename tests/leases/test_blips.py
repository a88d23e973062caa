"""What passes by itself costs no lease: TLS that is cut, a switchover, no threads."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import psycopg
import pytest

from plugins.cluster import Cluster
from plugins.server import running
from plugins.threads import eventually
from poolproof import ControlError, Lease

BLIP_S = 2.0


# --- TLS ------------------------------------------------------------------------------


class Cutter:
    """Stands before a server, and cuts the handshake of TLS while `cuts` is set."""

    def __init__(self, host, port):
        self.server = (host, port)
        self.cuts = threading.Event()
        self.cut = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.links, self.passing = [], []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def sever(self):
        """Cut the connections that are open."""
        for link in self.links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def close(self):
        """End it."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.sever()
        for thread in self.passing:
            thread.join(10)
        for link in (*self.links, self.listener):
            link.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                self.links.append(near)
                if self.cuts.is_set():
                    near.recv(8)
                    near.sendall(b"S")
                    near.recv(100)
                    near.shutdown(socket.SHUT_RDWR)
                    self.cut += 1
                    continue
                far = socket.create_connection(self.server)
                self.links.append(far)
                for one, other in ((near, far), (far, near)):
                    thread = threading.Thread(target=_pass_on, args=(one, other))
                    thread.start()
                    self.passing.append(thread)


def _pass_on(one, other):
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@pytest.fixture
def cutter(debian_pg):
    """Stand before a server that has TLS."""
    made = Cutter(debian_pg.host, debian_pg.port)
    yield made
    made.close()


@pytest.fixture
def behind(cutter, engine, name):
    """Return a function that makes a lease on the server behind it."""
    dsn = f"host=127.0.0.1 port={cutter.port} user=postgres dbname=postgres"
    return lambda **terms: Lease(
        engine, name, control_dsn=f"{dsn} sslmode=require", **terms
    )


def cut_for(cutter, seconds):
    cutter.cuts.set()
    cutter.sever()
    timer = threading.Timer(seconds, cutter.cuts.clear)
    timer.start()
    return timer


def test_a_handshake_that_is_cut_is_tried_again_until_the_timeout(cutter, behind):
    timer = cut_for(cutter, BLIP_S)
    with behind(timeout=20) as lease:
        lease.check()
    timer.join()
    assert cutter.cut


def test_a_lease_and_its_release_outlive_a_handshake_that_is_cut(cutter, behind):
    lease = behind(ttl=10).acquire()
    renewals = lease.stats().renewals
    cut_for(cutter, BLIP_S).join()
    eventually(lambda: lease.stats().renewals > renewals, what="a renewal")
    timer = cut_for(cutter, BLIP_S)
    lease.release()
    timer.join()
    # Else it would be held for the whole of its ttl.
    behind(ttl=60, timeout=8).acquire().release()


# --- a switchover ---------------------------------------------------------------------


@pytest.fixture
def other(pg):
    """Start a server of the test's own."""
    yield from running(Cluster(pg.binaries, package=pg.package))


def make_read_only(cluster, value):
    url = cluster.url("psycopg").set(drivername="postgresql")
    text = url.render_as_string(hide_password=False)
    with psycopg.connect(text, autocommit=True) as connection:
        connection.execute("set transaction_read_only = off")
        setting = f"alter system set default_transaction_read_only = {value}"
        connection.execute(setting)
        connection.execute("select pg_reload_conf()")


def test_hosts_are_asked_again_when_one_takes_no_writes_any_more(
    other, pg, engine, name
):
    """Its session, at rest, was opened when it did."""
    hosts = f"host={other.host},{pg.host} port={other.port},{pg.port}"
    dsn = f"{hosts} user=postgres dbname=postgres"
    for n in range(3):
        Lease(engine, f"{name} {n}", control_dsn=dsn).acquire().release()
        if n == 0:
            make_read_only(other, "on")
            time.sleep(0.2)  # the server reads its settings


def test_a_moment_without_writes_costs_no_lease(other, make_engine, name):
    engine = make_engine(other.url("psycopg2"))
    with Lease(engine, name, ttl=10) as lease:
        make_read_only(other, "on")
        timer = threading.Timer(BLIP_S, make_read_only, (other, "off"))
        timer.start()
        with Lease(engine, name + "2", timeout=20):
            pass
        timer.join()
        renewals = lease.stats().renewals
        eventually(lambda: lease.stats().renewals > renewals, what="a renewal")


# --- no threads -----------------------------------------------------------------------

WITHOUT_THREADS = """
    import os, resource, sys, threading, time
    import psycopg2
    from sqlalchemy import create_engine
    import poolproof
    from poolproof.control import notifier
    from poolproof.drivers import server_params

    if os.getuid() == 0:  # whom the limit does not concern
        os.setuid(54321)
    goes_on = threading.Event()

    def end():
        goes_on.wait()
        time.sleep(1.5)
        resource.setrlimit(resource.RLIMIT_NPROC, (before, before))

    before = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    ending = threading.Thread(target=end)
    ending.start()
    engine = create_engine(sys.argv[1], poolclass=poolproof.Pool)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, before))
    try:
        poolproof.Lease(engine, sys.argv[2], timeout=0).acquire()
    except poolproof.ControlError as error:
        print(error, flush=True)
    goes_on.set()
    with poolproof.Lease(engine, sys.argv[2], timeout=20) as lease:
        print(lease.fence, flush=True)
    ending.join()
"""


def test_a_moment_without_threads_is_waited_for(pg_url, program, name):
    """One failed start ended the leases for the life of the process."""
    url = pg_url("psycopg2").render_as_string(hide_password=False)
    started = program(WITHOUT_THREADS, url, name)
    assert "cannot start" in started.line()
    assert int(started.line()) > 0
    assert started.wait() == 0


BEATS_WITHOUT_THREADS = """
    import asyncio, logging, os, resource, sys, threading, time
    import psycopg2
    from sqlalchemy import create_engine
    import poolproof

    if os.getuid() == 0:  # whom the limit does not concern
        os.setuid(54321)
    fails = threading.Event()
    before = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    told = threading.Event()

    def say(what):
        sys.stdout.write(f"{what}\\n")  # whole, beside what other threads say

    class Lines(logging.Handler):
        def emit(self, record):
            (told if fails.is_set() else fails).set()
            say(record.getMessage())

    def end():
        fails.wait()
        time.sleep(1)
        say("threads again")
        resource.setrlimit(resource.RLIMIT_NPROC, (before, before))

    def said(beating):
        say(beating.stats().beats)
        told.wait()

    async def beat():
        async with poolproof.AsyncHeartbeat(engine, "select 1", every=0.1) as beating:
            said(beating)

    logger = logging.getLogger("poolproof.lease")
    logger.addHandler(Lines())
    logger.setLevel("INFO")
    engine = create_engine(sys.argv[1])
    ending = threading.Thread(target=end)
    ending.start()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, before))
    if sys.argv[2] == "asyncio":
        asyncio.run(beat())
    else:
        with poolproof.Heartbeat(engine, "select 1", every=0.1) as beating:
            said(beating)
    ending.join()
"""


@pytest.mark.parametrize("kind", ["plain", "asyncio"])
def test_a_heartbeat_begins_when_there_are_threads_again(pg_url, program, kind):
    """It raised at once, while a lease waited."""
    url = pg_url("psycopg2").render_as_string(hide_password=False)
    started = program(BEATS_WITHOUT_THREADS, url, kind)
    assert "heartbeat fails, and is tried again: the control" in started.line()
    assert started.line() == "threads again"
    beats, again = sorted((started.line(), started.line()))
    assert int(beats) > 0
    assert again.endswith("A heartbeat beats again; failed attempts: 1")
    assert started.wait() == 0


def test_a_server_that_is_not_there_says_so_at_its_own_time(engine, name):
    with pytest.raises(ControlError, match="connect to 127"):
        Lease(engine, name, control_dsn="host=127.0.0.1 port=1", timeout=0.2).acquire()

"""A server that says more than it is asked: what is kept of it is bounded."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading

import pytest

from plugins.threads import eventually
from plugins.wire import message
from poolproof import Lease

KIB = 1 << 10
NOTICE = message(b"N", b"SNOTICE\0VNOTICE\0C00000\0Mby the way\0\0")


class Chatty:
    """Stands before a server, and adds messages to each of its answers.

    Args:
        server: Host and port.
        more: Returns what is added, each time.
    """

    def __init__(self, server, more):
        self.server = server
        self.more = more
        self.sessions = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.threads = []
        self._go(self._serve)

    def close(self):
        """End it, when its clients have gone."""
        self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(60)
        self.listener.close()

    def _go(self, function, *arguments):
        self.threads.append(threading.Thread(target=function, args=arguments))
        self.threads[-1].start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                self.sessions += 1
                far = socket.create_connection(self.server)
                self._go(self._ask, near, far)
                self._go(self._answer, near, far)

    def _ask(self, near, far):
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_WR)

    def _answer(self, near, far):
        with near, far, far.makefile("rb") as answers, contextlib.suppress(OSError):
            while head := answers.read(5):
                body = answers.read(int.from_bytes(head[1:], "big") - 4)
                added = self.more() if head[:1] == b"Z" else b""
                near.sendall(added + head + body)


@pytest.fixture
def chatty(pg):
    """Return a function that makes such a server before the real one."""
    with contextlib.ExitStack() as stack:

        def make(more):
            made = Chatty((pg.host, pg.port), more)
            stack.callback(made.close)
            return made

        yield make


BEATING = """
    import sys, time
    from sqlalchemy import create_engine
    import poolproof

    def resident():
        status = open("/proc/self/status").read()
        return int(status.split("VmRSS:")[1].split()[0]) >> 10

    engine = create_engine(sys.argv[1])
    with poolproof.Heartbeat(engine, "select 1", every=0.1) as beating:
        for wanted in (5, 35):
            until = time.monotonic() + 60
            while beating.stats().beats < wanted and time.monotonic() < until:
                time.sleep(0.01)
            print(beating.stats().beats, resident(), flush=True)
"""


def test_parameters_with_ever_new_names_do_not_pile_up(chatty, program):
    """Each answer left 0.9 MiB behind, for as long as the session lived."""
    numbers = itertools.count()

    def more():
        return b"".join(
            message(
                b"S", f"name.n{next(numbers)}".encode() + b"\0" + b"x" * KIB + b"\0"
            )
            for _ in range(800)
        )

    server = chatty(more)
    url = f"postgresql+psycopg2://postgres@127.0.0.1:{server.port}/postgres"
    beating = program(BEATING, f"{url}?sslmode=disable")
    first, before = map(int, beating.line().split())
    last, after = map(int, beating.line().split())
    assert last - first >= 30
    assert after - before < 16, f"{after - before} MiB in {last - first} answers"
    assert beating.wait() == 0


def test_a_usual_server_keeps_its_session(chatty, engine, name):
    server = chatty(lambda: NOTICE)
    dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
    with Lease(engine, name, ttl=3, control_dsn=f"{dsn} sslmode=disable") as lease:
        opened = server.sessions
        before, notices = lease.stats().renewals, lease.notices
        eventually(lambda: lease.stats().renewals > before + 3, seconds=30)
        assert lease.notices >= notices + 3
        assert server.sessions == opened

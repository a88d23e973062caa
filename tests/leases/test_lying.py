"""Servers that lie send without end: the control plane takes a bounded part of it."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from plugins.wire import message

FIELDS = b"SNOTICE\0C00000\0M" + b"x" * 60_000 + b"\0\0"
TEXT = (
    b"n\0" + bytes(6) + (25).to_bytes(4, "big") + b"\xff\xff" + b"\xff" * 4 + bytes(2)
)
BEGUN = (
    message(b"1", b"")
    + message(b"2", b"")
    + message(b"t", bytes(2))
    + message(b"T", b"\0\1" + TEXT)
)
FLOODS = {
    "notices": message(b"N", FIELDS),
    "rows": message(b"D", b"\0\1" + (60_000).to_bytes(4, "big") + b"y" * 60_000),
    "parameters": message(b"S", b"application_name\0" + b"z" * 60_000 + b"\0"),
}
ASKING = """
    import resource, sys
    from sqlalchemy import create_engine
    import poolproof

    url, seconds = sys.argv[1], float(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    engine = create_engine(url, poolclass=poolproof.Pool)
    try:
        poolproof.Lease(engine, "lied to", timeout=seconds).acquire()
    except poolproof.ControlError as error:
        print(error, flush=True)
    # Of this program alone: ru_maxrss begins with what its parent had.
    status = open("/proc/self/status").read()
    print(status.split("VmHWM:")[1].split()[0], flush=True)
"""


class Liar:
    """Lets everybody in, and then sends the same message until they go.

    Args:
        flood: The message; empty sends nothing.
        at_once: Whether it comes before the greeting is complete.
    """

    def __init__(self, flood, *, at_once):
        self.flood = flood * 16
        self.at_once = at_once
        self.sent = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.threads = []
        self.accepting = threading.Thread(target=self._serve)
        self.accepting.start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.accepting.join()
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.listener.accept()
                thread = threading.Thread(target=self._lie, args=(link,))
                thread.start()
                self.threads.append(thread)

    def _lie(self, link):
        with link, contextlib.suppress(OSError):
            link.recv(10_000)  # the start-up message
            link.sendall(message(b"R", bytes(4)))
            if not self.at_once:
                link.sendall(message(b"K", bytes(8)) + message(b"Z", b"I"))
                link.recv(10_000)
                link.sendall(BEGUN)
            while self.flood:
                link.sendall(self.flood)
                self.sent += len(self.flood)
            link.recv(1)


@pytest.fixture
def high_water(program):
    """Return a function that has a program ask a liar.

    It returns what waits for that: what the program says, its RSS, and what was sent.
    """
    with contextlib.ExitStack() as stack:

        def ask(flood, *, at_once):
            liar = Liar(flood, at_once=at_once)
            stack.callback(liar.close)
            url = f"postgresql+psycopg2://u@127.0.0.1:{liar.port}/d?sslmode=disable"
            asking = program(ASKING, url, "1.5")

            def answer():
                said, kib = asking.line(), asking.line()
                assert asking.wait() == 0
                return said, int(kib) >> 10, liar.sent

            return answer

        yield ask


@pytest.mark.parametrize(
    ("kind", "at_once"),
    [("notices", True), *((kind, False) for kind in FLOODS)],
    ids=["greeting", *FLOODS],
)
def test_what_comes_before_an_answer_is_complete_is_bounded(high_water, kind, at_once):
    """A flood of notices or rows took 4.7 GiB in 5 s."""
    silent = high_water(b"", at_once=at_once)
    lying = high_water(FLOODS[kind], at_once=at_once)
    (_, control, _), (said, mib, sent) = silent(), lying()
    assert sent > 4 << 20
    assert "without completing its answer" in said
    assert mib < control + 32, f"{mib} MiB, and {control} with a server that is silent"

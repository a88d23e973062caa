"""The proxy: what passes, what is put in, what is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from poolproof.drill.proxy import Link, Proxy
from poolproof.drill.target import Address


class Echo:
    """A server that sends back what it gets; on TCP, or on a unix socket."""

    def __init__(self, path: str = "") -> None:
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen()
            self.address = Address(path=path)
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.address = Address("127.0.0.1", self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        with self.listener:
            while True:
                try:
                    peer, _ = self.listener.accept()
                except OSError:
                    return
                threading.Thread(target=self.echo, args=(peer,), daemon=True).start()

    @staticmethod
    def echo(peer: socket.socket) -> None:
        with peer:
            while data := peer.recv(65536):
                peer.sendall(data)

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.stop()


@pytest.fixture
def proxy(echo) -> Iterator[Proxy]:
    before = threading.active_count()
    with Proxy(echo.address) as running:
        yield running
    names = [t.name for t in threading.enumerate() if t.name.startswith("proxy-")]
    assert names == [], f"{before} threads before"


def connect(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), 5)
    client.settimeout(5)
    return client


def link_of(proxy: Proxy, client: socket.socket) -> Link:
    """Return the client's link, once a round trip shows that it is there."""
    client.sendall(b"?")
    assert client.recv(1) == b"?"
    return proxy.links[-1]


def take(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


def test_bytes_pass_both_ways_unchanged(proxy):
    payload = bytes(range(256)) * 2000
    with connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(payload,))
        sender.start()
        assert take(client, len(payload)) == payload
        sender.join()


def test_a_server_on_a_unix_socket_is_reached(tmp_path):
    server = Echo(str(tmp_path / "socket"))
    with Proxy(server.address) as proxy, connect(proxy) as client:
        client.sendall(b"hello")
        assert take(client, 5) == b"hello"
    server.stop()


def test_injected_bytes_reach_the_client_and_not_the_server(proxy):
    with connect(proxy) as client:
        link = link_of(proxy, client)
        link.inject(b"stray")
        assert take(client, 5) == b"stray"
        client.sendall(b"ok")
        assert take(client, 2) == b"ok"


def test_only_the_chosen_link_is_harmed(proxy):
    with connect(proxy) as one, connect(proxy) as two:
        link_of(proxy, one)
        link = link_of(proxy, two)
        link.inject(b"stray")
        one.sendall(b"ok")
        assert take(one, 2) == b"ok"
        assert take(two, 5) == b"stray"


def test_a_link_becomes_quiet_when_nothing_passes(proxy):
    with connect(proxy) as client:
        link = link_of(proxy, client)
        assert link.wait_quiet(quiet_s=0.05)
        client.sendall(b"x")
        take(client, 1)
        assert not link.wait_quiet(quiet_s=30, timeout_s=0)


def test_a_cut_link_ends_both_sides(proxy):
    with connect(proxy) as client:
        link_of(proxy, client).cut()
        assert client.recv(1) == b""


def says_nothing(client: socket.socket) -> bool:
    """Tell whether nothing comes for a while."""
    client.settimeout(0.1)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        client.settimeout(5)


def test_a_stalled_link_takes_everything_and_delivers_it_when_it_resumes(proxy):
    with connect(proxy) as client:
        link = link_of(proxy, client)
        link.stall()
        client.sendall(b"late")
        assert says_nothing(client)
        link.resume()
        assert take(client, 4) == b"late"


def test_a_stalled_proxy_stalls_newcomers_unless_told_otherwise(proxy):
    with connect(proxy) as old:
        link_of(proxy, old)
        proxy.stall()
        with connect(proxy) as new:
            new.sendall(b"new")
            old.sendall(b"old")
            assert says_nothing(new)
            assert says_nothing(old)
            proxy.stall(newcomers=False)
            with connect(proxy) as spared:
                spared.sendall(b"hello")
                assert take(spared, 5) == b"hello"


def test_a_proxy_may_resume_for_newcomers_alone(proxy):
    with connect(proxy) as old:
        link_of(proxy, old)
        proxy.stall()
        old.sendall(b"old")
        proxy.resume(old=False)
        with connect(proxy) as new:
            new.sendall(b"hello")
            assert take(new, 5) == b"hello"
        assert says_nothing(old)
        proxy.resume()
        assert take(old, 3) == b"old"


def test_cutting_a_stalled_link_ends_it_at_once(proxy):
    with connect(proxy) as client:
        link = link_of(proxy, client)
        link.stall()
        client.sendall(b"never")
        assert says_nothing(client)
        link.cut()
        assert client.recv(1) == b""


def test_bytes_come_before_the_next_that_pass_and_only_once(proxy):
    with connect(proxy) as client:
        link_of(proxy, client).precede(b"stray")
        client.sendall(b"one")
        assert take(client, 8) == b"strayone"
        client.sendall(b"two")
        assert take(client, 3) == b"two"


def test_bytes_follow_the_end_of_an_answer_and_no_earlier_segment(proxy):
    ready = b"Z\0\0\0\x05I"
    with connect(proxy) as client:
        link_of(proxy, client).follow(b"stray")
        client.sendall(b"half")
        assert take(client, 4) == b"half"
        client.sendall(ready)
        assert take(client, 11) == ready + b"stray"
        client.sendall(ready)
        assert take(client, 6) == ready


def test_the_end_of_one_side_is_passed_on(proxy):
    with connect(proxy) as client:
        link_of(proxy, client)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_a_server_that_refuses_closes_the_client(refusing):
    server = Address("127.0.0.1", refusing.port)
    with Proxy(server) as proxy, connect(proxy) as client:
        assert client.recv(1) == b""


def test_stop_may_be_called_twice(echo):
    proxy = Proxy(echo.address).start()
    proxy.stop()
    proxy.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = proxy.port

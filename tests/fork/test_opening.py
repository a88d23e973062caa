"""Which sockets a child gives up when somebody was connecting at the fork."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

import poolproof
from plugins.processes import run_in_fork
from poolproof.fork.in_flight import Opening


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def pool(server, make_engine):
    port = server.getsockname()[1]
    return make_engine(f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres").pool


@pytest.fixture
def opened():
    """Open sockets, and close them in the end."""
    with contextlib.ExitStack() as stack:

        def keep(*sockets):
            for each in sockets:
                stack.enter_context(each)
            return sockets[0]

        yield keep


def identity(file):
    return os.fstat(file.fileno()).st_ino


def severed_in_a_child(*files):
    """Fork; say of each file whether the child has something else in its place."""
    before = [identity(file) for file in files]
    report = run_in_fork(lambda: [identity(file) for file in files]).assert_silent()
    assert [identity(file) for file in files] == before
    return [old != new for old, new in zip(before, report.result, strict=True)]


def test_what_leads_to_the_server_and_was_not_there_before(pool, server, opened):
    before = opened(socket.create_connection(server.getsockname()))
    with Opening(pool._ports):
        during = opened(socket.create_connection(server.getsockname()))
        assert severed_in_a_child(before, during) == [False, True]
    assert severed_in_a_child(before, during) == [False, False]


def test_a_number_that_was_another_files_before(pool, server, opened):
    other = opened(socket.create_server(("127.0.0.1", 0)))
    with Opening(pool._ports):
        number = other.fileno()
        new = opened(socket.create_connection(server.getsockname()))
        os.dup2(new.fileno(), number)
        assert severed_in_a_child(other, new) == [True, True]


def test_over_a_unix_socket(make_engine, opened, tmp_path):
    path = str(tmp_path / ".s.PGSQL.6543")
    listening = opened(socket.socket(socket.AF_UNIX))
    listening.bind(path)
    listening.listen()
    pool = make_engine(
        f"postgresql+psycopg2://postgres@/postgres?host={tmp_path}&port=6543"
    ).pool
    with Opening(pool._ports):
        new = opened(socket.socket(socket.AF_UNIX))
        new.connect(path)
        assert severed_in_a_child(new, listening) == [True, False]


def test_what_still_waits_to_be_connected(pool, opened):
    """Nothing says yet where it leads."""
    full = opened(socket.create_server(("127.0.0.1", 0), backlog=0))
    with Opening(pool._ports):
        waiting = []
        for _ in range(3):
            one = opened(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            waiting.append(one)
        assert severed_in_a_child(*waiting) == [False, True, True]


def test_other_libraries_sockets_are_let_be(pool, server, opened):
    with Opening(pool._ports):
        listening = opened(socket.create_server(("127.0.0.1", 0)))
        away = opened(socket.create_connection(listening.getsockname()))
        accepted = opened(listening.accept()[0])
        pair = opened(*socket.socketpair())
        datagrams = opened(socket.socket(type=socket.SOCK_DGRAM))
        datagrams.connect(server.getsockname())
        fresh = opened(socket.socket())
        files = (listening, away, accepted, pair, datagrams, fresh)
        assert not any(severed_in_a_child(*files))


def test_a_creator_of_ones_own_and_where_its_server_is(server, opened):
    host, port = server.getsockname()
    for dsn, found in [(None, False), (f"host={host} port={port}", True)]:
        pool = poolproof.Pool(lambda: None, control_dsn=dsn)
        with Opening(pool._ports):
            new = opened(socket.create_connection((host, port)))
            assert severed_in_a_child(new) == [found]


def test_a_creator_of_ones_own_is_taken_for_one_of_the_default_port(
    server, opened, monkeypatch
):
    host, port = server.getsockname()
    monkeypatch.setenv("PGPORT", str(port))
    with Opening(poolproof.Pool(lambda: None)._ports):
        new = opened(socket.create_connection((host, port)))
        assert severed_in_a_child(new) == [True]

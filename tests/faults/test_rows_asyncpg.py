"""Rows about asyncpg, which lets through what comes from the system as it came."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading

import asyncpg
import pytest

from plugins.harm import Proxy, message
from plugins.rows import decided_by, row
from poolproof import Fault
from poolproof.faults import table
from poolproof.faults.error_info import read

DESCRIPTION = message(
    b"T", struct.pack("!h", 1) + b"x\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0)
)


def error_of(make):
    """Return what a coroutine raises."""

    async def main():
        try:
            await make()
        except Exception as error:
            return error
        return None

    return asyncio.run(main())


def connecting(port, host="127.0.0.1"):
    return error_of(lambda: asyncpg.connect(host=host, port=port, user="postgres"))


@pytest.fixture
def proxy(pg):
    made = Proxy((pg.host, pg.port))
    yield made
    made.close()


def test_a_port_where_nobody_listens_is_unreachable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = connecting(unused.getsockname()[1])
    assert decided_by(error) == row("builtins.ConnectionRefusedError")


def test_a_name_without_an_address_is_unreachable():
    assert decided_by(connecting(1, "nowhere.invalid")) == row("socket.gaierror")


def test_a_server_that_resets_is_a_loss_before_anything_was_sent():
    listener = socket.create_server(("127.0.0.1", 0))

    def reset():
        client, _ = listener.accept()
        linger = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.recv(1)
        client.close()

    thread = threading.Thread(target=reset)
    thread.start()
    with listener:
        error = connecting(listener.getsockname()[1])
        thread.join()
    expected = row(
        "no DBAPI error, but raised by the driver's own code and exception "
        "`builtins.ConnectionError`"
    )
    assert decided_by(error) == expected


def test_a_stray_answer_is_corruption(proxy):
    async def work():
        connection = await asyncpg.connect(
            host="127.0.0.1", port=proxy.port, user="postgres"
        )
        try:
            await connection.fetch("select 1")
            proxy.inject(message(b"T", DESCRIPTION[5:] + b"more"))
            await asyncio.wait_for(connection.fetch("select 42"), 5)
        finally:
            connection.terminate()

    assert decided_by(error_of(work)) == row("InternalClientError")


FAREWELL = message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0")


@pytest.mark.parametrize("stray", [FAREWELL, DESCRIPTION], ids=["farewell", "stray"])
def test_the_error_alone_does_not_tell_a_farewell_from_corruption(pg, stray):
    # The driver drops the message, and ends the connection itself. Should it tell one
    # day, `farewells` can go.
    async def work():
        connection = await asyncpg.connect(
            host=pg.host, port=pg.port, user="postgres", database="postgres"
        )
        try:
            await connection.fetch("select 1")
            connection._transport.get_protocol().data_received(stray)
            await connection.fetch("select 1")
        finally:
            assert connection.is_closed()

    error = error_of(work)
    assert re.fullmatch(
        r"cannot switch to state \d+; another operation \(2\) is in progress",
        str(error),
    )
    verdict = table.judge(read(error), phase="statement", closed=True)
    assert (verdict.fault, verdict.retry) == (Fault.CORRUPTION, "never")


@pytest.mark.parametrize("again", [False, True], ids=["broken", "closed"])
def test_a_connection_that_broke_is_lost(proxy, again):
    async def work():
        connection = await asyncpg.connect(
            host="127.0.0.1", port=proxy.port, user="postgres"
        )
        proxy.cut()
        if again:
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.fetch("select 1")
        await connection.fetch("select 1")

    expected = row("SQLSTATE class `08`")
    if again:
        expected = row("driver asyncpg and message `connection is closed`")
    assert decided_by(error_of(work)) == expected

"""Rows about connections that could not be opened."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading

import psycopg
import pytest
import sqlalchemy as sa

import poolproof
from plugins.cluster import Cluster
from plugins.harm import first_error
from plugins.rows import decided_by, row
from plugins.server import unavailable
from plugins.threads import eventually
from poolproof import Fault

NOWHERE = "nowhere.invalid"
_RESET = struct.pack("ii", 1, 0)


def close_at_once(client):
    client.recv(1000)


def reset_at_once(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def agree_and(then):
    """Agree to TLS, and end the agreement as *then* does."""

    def harm(client):
        client.recv(8)
        client.sendall(b"S")
        client.recv(10_000)
        then(client)

    return harm


def end(_):
    pass


def say_goodbye(client):
    client.sendall(b"\x15\x03\x03\x00\x02\x01\x00")  # an alert: close_notify


def talk_nonsense(client):
    client.sendall(b"hello, world! this is no TLS")


@pytest.fixture
def server():
    """Return a function that opens a port where each client is treated badly."""
    opened = []

    def serve(listener, harm):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    harm(client)

    def start(harm):
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, args=(listener, harm), daemon=True)
        opened.append((listener, thread))
        thread.start()
        return listener.getsockname()[1]

    yield start
    for listener, thread in opened:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()


def connect(driver, port, host="127.0.0.1", **arguments):
    """Return the error of connecting, which must cost nothing."""
    url = sa.URL.create(
        f"postgresql+{driver}",
        username="postgres",
        host=host,
        port=port,
        database="postgres",
    )
    engine = sa.create_engine(url, connect_args=arguments)
    poolproof.guard(engine)
    error = first_error(engine.connect)
    verdict = poolproof.classify(error)
    assert (verdict.cost, verdict.outcome) == ("nothing", "not_done")
    return error


def any_certificate():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
@pytest.mark.parametrize("harm", [close_at_once, reset_at_once])
def test_a_server_that_hangs_up_is_unreachable(server, driver, harm):
    error = connect(driver, server(harm))
    # A reset that comes before libpq has sent anything is called by its name.
    assert decided_by(error) in {
        row("failed with `server closed the connection"),
        row("failed with `Connection reset by peer`"),
    }
    assert poolproof.classify(error).fault is Fault.UNREACHABLE


def test_under_pg8000_one_that_resets_is_lost_before_anything_was_sent(server):
    error = connect("pg8000", server(reset_at_once))
    assert decided_by(error) == row("pg8000", "builtins.ConnectionError")
    assert poolproof.classify(error).retry == "reconnect"


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_server_that_hangs_up_over_tls_is_unreachable(server, driver):
    error = connect(driver, server(agree_and(end)), sslmode="require")
    # Which words depends on the driver's OpenSSL.
    assert decided_by(error) in {
        row("connecting failed with `SSL SYSCALL error`"),
        row("connecting failed with `SSL error: unexpected eof`"),
    }
    assert poolproof.classify(error).fault is Fault.UNREACHABLE


@pytest.mark.parametrize(
    ("driver", "harm", "expected"),
    [
        ("pg8000", end, row("ssl.SSLEOFError")),
        ("pg8000", say_goodbye, row("ssl.SSLZeroReturnError")),
        ("pg8000", talk_nonsense, row("ssl.SSLError")),
    ],
)
def test_tls_that_fails_under_pg8000_is_a_lost_connection(
    server, driver, harm, expected
):
    port = server(agree_and(harm))
    error = connect(driver, port, ssl_context=any_certificate())
    assert decided_by(error) == expected


def test_a_port_where_nobody_listens_is_unreachable(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for driver, expected in (
            ("psycopg2", row("failed with `Connection refused`")),
            ("psycopg", row("failed with `Connection refused`")),
            ("pg8000", row("begins `Can't create a connection to host`")),
        ):
            assert decided_by(connect(driver, port)) == expected


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("psycopg2", row("failed with `could not translate host name`")),
        ("psycopg", row("begins `failed to resolve host `")),
        ("pg8000", row("begins `Can't create a connection to host`")),
    ],
)
def test_a_name_without_an_address_is_unreachable(driver, expected):
    error = connect(driver, 5432, NOWHERE)
    assert decided_by(error) == expected
    assert expected.fault is Fault.UNREACHABLE


@pytest.mark.parametrize(
    ("driver", "host", "arguments", "expected"),
    [
        ("psycopg2", "/nowhere", {}, row("`No such file or directory`")),
        ("psycopg", "/nowhere", {}, row("`No such file or directory`")),
        ("pg8000", None, {"unix_sock": "/nowhere/x"}, row("`communication error`")),
    ],
)
def test_a_socket_that_is_not_there_is_unreachable(driver, host, arguments, expected):
    error = connect(driver, 5432, host, **arguments)
    assert decided_by(error) == expected


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_server_that_never_answers_is_unreachable(server, driver):
    given_up = threading.Event()
    error = connect(driver, server(lambda _: given_up.wait(20)), connect_timeout=2)
    given_up.set()
    assert decided_by(error) == row("failed with `timeout expired`")


def test_a_host_that_does_not_answer_is_unreachable():
    """Linux answers nothing while the queue of a listener is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        error = connect("psycopg2", port, tcp_user_timeout=300)
    assert decided_by(error) == row("failed with `Connection timed out`")


IN_A_NETWORK_OF_ITS_OWN = """
import subprocess, sys
import psycopg2, sqlalchemy as sa
sys.path.insert(0, sys.argv[1])
from plugins.harm import first_error
from plugins.rows import decided_by
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["ip", "route", "add", "unreachable", "192.0.2.1"], check=True)
for host in ("192.0.2.1", "198.51.100.1"):
    engine = sa.create_engine(f"postgresql+psycopg2://u@{host}/d")
    print(decided_by(first_error(engine.connect)).words)
"""


def test_a_host_or_network_without_a_route_is_unreachable(request):
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        unavailable("no network of one's own: install util-linux and iproute2")
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("the kernel lets nobody make a network of one's own here")
    tests = str(request.config.rootpath / "tests")
    done = subprocess.run(
        [*command, sys.executable, "-c", IN_A_NETWORK_OF_ITS_OWN, tests],
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.splitlines() == [
        row("failed with `No route to host`").words,
        row("failed with `Network is unreachable`").words,
    ]


# --- refused by a server --------------------------------------------------------------


@pytest.fixture(scope="module")
def full(pg):
    """Run a server whose places are taken, but for four of a superuser's.

    A session that was refused has one of them for a moment still.
    """
    cluster = Cluster(
        pg.binaries,
        package=pg.package,
        settings={"max_connections": "8", "superuser_reserved_connections": "4"},
    )
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.start()

        def hold():
            made = psycopg.connect(
                host=cluster.host,
                port=cluster.port,
                user="postgres",
                dbname="postgres",
                autocommit=True,
            )
            return stack.enter_context(made)

        admin = hold()
        admin.execute("create role joe login")
        admin.execute("create role nobody_more login connection limit 0")
        hold(), hold(), hold()
        yield cluster, hold


def did(action):
    """Say whether a server let somebody in."""
    try:
        action()
    except psycopg.OperationalError:
        return False
    return True


FULL = row("failed with `FATAL: sorry, too many clients already`")


@pytest.mark.slow
def test_a_full_server_and_a_full_role_are_told_from_other_errors(full):
    cluster, hold = full
    for role, words in (
        ("joe", row("failed with `FATAL: remaining connection slots are reserved`")),
        ("nobody_more", row("failed with `FATAL: too many connections for `")),
        ("postgres", FULL),
    ):
        if words == FULL:
            for _ in range(4):
                eventually(lambda: did(hold), what="a superuser's place is free")
        for driver in ("psycopg2", "psycopg", "pg8000"):
            error = connect(driver, cluster.port, user=role)
            expected = row("SQLSTATE `53300`") if driver == "pg8000" else words
            assert decided_by(error) == expected
            assert expected.fault is Fault.TOO_MANY_CONNECTIONS

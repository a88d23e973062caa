"""Descriptors that are closed under the control plane, as a daemoniser closes all.

What the application opens next gets the numbers: nothing is sent to it, nothing of it
is closed, and leases go on over new connections.
"""

from __future__ import annotations

import signal

import pytest

PROGRAM = """
    import os, resource, signal, sys, tempfile, time
    from sqlalchemy import create_engine, text
    import poolproof

    _, url, name, ends = sys.argv
    engine = create_engine(
        url, poolclass=poolproof.Pool, end_stranded_backends=True, pool_size=3
    )
    connections = [engine.connect() for _ in range(3)]
    for connection in connections:
        connection.execute(text("select 1"))
    lease = poolproof.Lease(engine, name, ttl=6).acquire()

    # As a daemoniser does; the application's files get the numbers.
    os.closerange(3, 1024)
    files = []
    for n in range(60):
        path = f"{tempfile.gettempdir()}/daemonised-{os.getpid()}-{n}"
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        os.write(number, b"of the application")
        files.append((number, os.fstat(number)))
    # The control plane has opened some by now.
    assert len({number for number, _ in files} & set(range(3, 63))) > 40

    def look():
        for number, was in files:
            now = os.fstat(number)
            assert (now.st_dev, now.st_ino) == (was.st_dev, was.st_ino), number
            assert os.pread(number, 100, 0) == b"of the application", number

    renewals = lease.stats().renewals
    until = time.monotonic() + 30
    while lease.stats().renewals < renewals + 3:
        lease.check()
        look()
        assert time.monotonic() < until
        time.sleep(0.02)
    print("it goes on", flush=True)
    with poolproof.Lease(engine, name + " anew", ttl=6) as other:
        other.check()
    for connection in connections:
        connection.invalidate()
    engine.dispose()
    with engine.connect() as connection:
        assert connection.scalar(text("select 2")) == 2
    look()
    if ends == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    lease.release()
    look()
    print("it is given back", flush=True)
"""


@pytest.mark.parametrize("ends", ["release", "sigterm"])
def test_a_lease_outlives_a_daemoniser_and_no_file_is_touched(
    pg_url, program, name, row, ends
):
    url = pg_url("psycopg2").render_as_string(hide_password=False)
    daemon = program(PROGRAM, url, name, ends)
    assert daemon.line() == "it goes on"
    if ends == "release":
        assert daemon.line() == "it is given back"
    assert daemon.wait() == (0 if ends == "release" else -signal.SIGTERM)
    assert row(name)["token"] is None

"""A file that does not answer, as on a file server that is gone, holds up nothing else.

A named pipe stands in for it: to open one waits until somebody writes.
"""

from __future__ import annotations

import contextlib
import os
import time

import pytest
from sqlalchemy import create_engine

from control.asking import as_text
from control.letting_in import cut_off
from plugins.threads import eventually
from poolproof import ControlError, Lease

FORKS = 5
# A fork waited for a second and more.
LATE_S = 0.5


@pytest.fixture
def engine(real):
    """Return an engine; its own parameters lead to a server too."""
    engine = create_engine(real.url("psycopg2"))
    yield engine
    engine.dispose()


class Hanging:
    """A file that can be made to hang, and to answer again."""

    def __init__(self, path, content):
        self.path = path
        self.pipe = path.with_suffix(".pipe")
        self.content = content
        self.answer()

    def hang(self):
        """Answer nobody."""
        os.mkfifo(self.pipe, 0o600)
        other = self.path.with_suffix(".other")
        os.link(self.pipe, other)
        other.replace(self.path)

    def answer(self):
        """Hold what it should, and let go of who waits for the pipe."""
        other = self.path.with_suffix(".other")
        other.write_bytes(self.content)
        other.chmod(0o600)
        other.replace(self.path)
        with contextlib.suppress(OSError):  # there is none, or nobody waits
            os.close(os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK))
        self.pipe.unlink(missing_ok=True)


KINDS = ("sslrootcert", "sslcert", "sslcrl", "service")


@pytest.fixture
def hanging(request, real, root, tmp_path):
    """Return a file that can be made to hang, and a dsn that names it."""
    where = {"host": real.host, "port": real.port, "dbname": "postgres"}
    where |= {"user": "in_tls", "sslmode": "verify-ca", "sslrootcert": root.path}
    path = tmp_path / "hanging"
    kind = request.param
    if kind == "sslrootcert":
        content = root.path.read_bytes()
    elif kind == "sslcrl":
        content = (root.directory / "root.crl").read_bytes()
    elif kind == "sslcert":
        pair = root.issue("slow", names=(), addresses=(), common="in_tls")
        content = pair.path.read_bytes()
        where["sslkey"] = pair.key_path
    else:
        content = b"[ours]\nuser=in_tls\n"
        where |= {"service": "ours"}
        del where["user"]
    where["servicefile" if kind == "service" else kind] = path
    file = Hanging(path, content)
    yield file, as_text(where)
    file.answer()


def time_of_forks():
    began = time.monotonic()
    for _ in range(FORKS):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return time.monotonic() - began


# One on the way to a place, and one before there is any.
@pytest.mark.parametrize("hanging", ["sslrootcert", "service"], indirect=True)
def test_a_file_that_hangs_costs_its_own_lease_an_attempt_and_no_more(
    real, engine, hanging
):
    file, dsn = hanging
    with (
        Lease(engine, "other", ttl=3) as other,
        Lease(engine, "hangs", ttl=15, control_dsn=dsn) as lease,
    ):
        control = time_of_forks()
        file.hang()
        cut_off(real, "in_tls")
        blips = lease.stats().blips
        # It asks for it again, and hangs.
        eventually(lambda: lease.stats().blips > blips, seconds=60)
        renewals = other.stats().renewals
        assert time_of_forks() < control + FORKS * LATE_S
        eventually(lambda: other.stats().renewals > renewals + 2, seconds=60)
        other.check()
        lease.check()
        file.answer()
        renewals = lease.stats().renewals
        eventually(lambda: lease.stats().renewals > renewals, seconds=60)


@pytest.mark.parametrize("hanging", KINDS, indirect=True)
def test_who_waits_in_vain_is_told_for_what(real, engine, hanging):
    file, dsn = hanging
    Lease(engine, "told", control_dsn=dsn).acquire().release()
    file.hang()
    cut_off(real, "in_tls")
    with pytest.raises(ControlError, match="the files that it needs"):
        Lease(engine, "told", control_dsn=dsn, timeout=2).acquire()

"""TLS of the control plane: what each sslmode checks, and that a fork severs it too."""

from __future__ import annotations

import itertools
import subprocess

import pytest

from plugins.debian_server import self_signed
from plugins.processes import run_in_fork
from plugins.tls import TlsProxy
from poolproof import ControlError, Lease, LeaseForked

_numbers = itertools.count()
CHECKED = ("verify-ca", "verify-full")


def dsn(cluster, **more):
    given = {"host": cluster.host, "port": cluster.port, "user": "postgres"}
    given |= {"dbname": "postgres", "application_name": f"tls-{next(_numbers)}", **more}
    return " ".join(f"{name}={value}" for name, value in given.items())


@pytest.fixture
def hold(engine, name):
    """Return a function that makes a lease, kept where a dsn says."""
    return lambda dsn: Lease(engine, name, control_dsn=dsn, timeout=5)


@pytest.fixture
def encrypted(debian_observer):
    """Tell whether the sessions of a dsn are."""
    return lambda dsn: debian_observer.value(
        "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid)"
        " where application_name = %s",
        dsn.partition("application_name=")[2].split()[0] + " poolproof-control",
    )


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", *CHECKED])
def test_each_mode_connects_to_a_server_that_it_trusts(
    debian_pg, hold, encrypted, mode
):
    roots = {"sslrootcert": debian_pg.home / "server.crt"} if mode in CHECKED else {}
    wanted = dsn(debian_pg, sslmode=mode, **roots)
    with hold(wanted) as lease:
        # With `allow` the server is asked in clear, which this one takes.
        assert encrypted(wanted) is (mode not in {"disable", "allow"})
        lease.check()


@pytest.mark.parametrize("mode", ["require", *CHECKED])
def test_another_issuer_is_refused(debian_pg, hold, tmp_path, mode):
    """With roots at hand, `require` checks them as well, as in libpq."""
    other, _ = self_signed(tmp_path)
    with pytest.raises(ControlError, match="TLS"):
        hold(dsn(debian_pg, sslmode=mode, sslrootcert=other)).acquire()


def test_another_name_is_refused_by_verify_full_alone(debian_pg, hold):
    more = {"host": "other.example", "hostaddr": debian_pg.host}
    more |= {"sslrootcert": debian_pg.home / "server.crt"}
    with hold(dsn(debian_pg, sslmode="verify-ca", **more)):
        pass
    with pytest.raises(ControlError, match="TLS"):
        hold(dsn(debian_pg, sslmode="verify-full", **more)).acquire()


@pytest.fixture
def issued(tmp_path):
    """Make an issuer, and a certificate by it for the loopback address."""
    extensions = tmp_path / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    new = "req -newkey rsa:2048 -nodes"
    by = "-CA ca -CAkey ca.key -CAcreateserial -days 2"
    for words in (
        f"{new} -x509 -days 2 -subj /CN=issuer -out ca -keyout ca.key",
        f"{new} -subj /CN=server -out asked -keyout key",
        f"x509 -req -in asked {by} -out certificate -extfile extensions",
    ):
        subprocess.run(
            ["openssl", *words.split()],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            timeout=200,
        )
    return tmp_path


def test_a_certificate_of_an_issuer_is_checked_by_the_issuer(
    debian_pg, pg, hold, issued
):
    proxy = TlsProxy((pg.host, pg.port), issued / "certificate", issued / "key")
    try:
        where = {"port": proxy.port, "sslmode": "verify-full"}
        with hold(dsn(pg, **where, sslrootcert=issued / "ca")) as lease:
            lease.check()
        other = hold(dsn(pg, **where, sslrootcert=debian_pg.home / "server.crt"))
        with pytest.raises(ControlError, match="TLS"):
            other.acquire()
    finally:
        proxy.close()


def test_a_server_without_tls_is_refused_where_tls_is_wanted(pg, hold):
    with hold(dsn(pg, sslmode="prefer")):
        pass
    with pytest.raises(ControlError, match="TLS"):
        hold(dsn(pg, sslmode="require")).acquire()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"sslmode": "verify-full"}, "root certificates"),
        ({"sslmode": "verify-ca", "sslrootcert": "/not/there"}, "/not/there"),
    ],
)
def test_wrong_files_are_named(debian_pg, hold, monkeypatch, tmp_path, more, says):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ControlError, match=says) as caught:
        hold(dsn(debian_pg, **more)).acquire()
    assert caught.value.kind == "parameters"


def test_a_client_s_certificate_that_is_not_there_is_not_sent(debian_pg, hold):
    with hold(dsn(debian_pg, sslcert="/not/there", sslkey="/nor/there")) as lease:
        lease.check()


@pytest.mark.fork
def test_a_child_says_nothing_over_tls(debian_pg, hold, encrypted):
    wanted = dsn(debian_pg, sslmode="require")
    with hold(wanted) as lease:

        def child():
            with pytest.raises(LeaseForked):
                lease.check()

        run_in_fork(child).assert_silent()
        renewals = lease.stats().renewals
        lease.check()
        assert encrypted(wanted)
        assert lease.stats().renewals >= renewals

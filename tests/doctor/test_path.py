"""2xx: a real PgBouncer, a slow way, several hosts, certificates; and a direct way."""

from __future__ import annotations

import contextlib
import socket
import subprocess

import psycopg
import pytest

import poolproof
from plugins.cluster import Cluster
from plugins.debian_server import newest_binaries
from plugins.server import running
from plugins.threads import eventually
from poolproof.drill.proxy import Proxy, Pump
from poolproof.drill.target import Address

DRIVERS = ["psycopg2", "psycopg", "pg8000", "asyncpg"]


def of(pooler, driver="psycopg2"):
    return pooler.url.set(drivername=f"postgresql+{driver}")


def evidence(finding):
    return "\n".join(finding.evidence)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_pooler_is_seen_by_its_backends_number(look, pooler, driver):
    finding = look(of(pooler(), driver), "PP201")
    assert (finding.state, finding.severity) == ("found", "note")
    assert "stands in between" in finding.summary
    assert "the driver was told" in evidence(finding)


def test_the_direct_way_is_fine(look, pg_url):
    found = look(pg_url("psycopg2"), "PP201", "PP202", "PP203", "PP204", "PP205")
    assert {one.state for one in found.values()} == {"fine"}


def test_a_unix_socket_is_direct(look, pg_url):
    found = look(pg_url("psycopg2", unix=True), "PP201", "PP207", "PP210")
    assert {one.state for one in found.values()} == {"fine"}


def test_a_proxy_is_seen_by_the_port_that_the_server_sees(look, pg, pg_url):
    proxy = Proxy(Address(host=pg.host, port=pg.port))
    with proxy:
        finding = look(pg_url("psycopg2").set(port=proxy.port), "PP201")
    assert finding.confidence == "likely"
    assert "the server sees another end than ours" in finding.summary


def test_a_pooler_that_reports_itself_is_believed(look, pg, pg_url):
    """As PgBouncer 1.26 does: a ParameterStatus at the start, put in on the way."""
    said = b"pgbouncer.version\x001.26.0\x00"
    status = b"S" + (len(said) + 4).to_bytes(4, "big") + said
    proxy = Reporting(Address(host=pg.host, port=pg.port), status)
    with proxy:
        url = pg_url("psycopg2").set(port=proxy.port)
        found = look(url, "PP201", "PP204")
    assert "PgBouncer 1.26.0 stands in between" in found["PP201"].summary
    assert "CVE-2026-107350" in found["PP204"].summary
    assert "CVE-2025-2291" not in found["PP204"].summary


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pgbouncer_of_today_reports_itself_and_its_mode(look, telling_pooler, mode):
    """The real one, whose console is closed to us."""
    started = telling_pooler(pool_mode=mode, admin_users="nobody")
    finding = look(of(started), "PP201")
    assert "PgBouncer 1.26." in finding.summary
    assert f"reported: pgbouncer.pool_mode = {mode}" in evidence(finding)


class Reporting(Proxy):
    """A proxy that puts a message behind the server's word that a client is let in."""

    def __init__(self, address, message):
        super().__init__(address)
        self._message = message
        self._between = contextlib.ExitStack()

    def stop(self):
        super().stop()
        self._between.close()

    def _connect(self):
        server = super()._connect()
        near, far = socket.socketpair()
        self._between.enter_context(far)
        self._between.enter_context(server)
        Pump("to the server", far, server).start()
        Inserting("from the server", server, far, self._message).start()
        return near


class Inserting(Pump):
    """A pump that puts a message behind AuthenticationOk."""

    def __init__(self, name, source, sink, message):
        super().__init__(name, source, sink)
        self._message = message

    def forward(self, data):
        let_in = b"R" + (8).to_bytes(4, "big") + bytes(4)
        super().forward(data.replace(let_in, let_in + self._message, 1))


def test_transaction_mode_is_found_by_trying(look, pooler):
    """As a user whom the console does not let in."""
    started = pooler(pool_mode="transaction", admin_users="nobody")
    found = look(of(started), "PP201", "PP202", "PP203", "PP204", "PP205")
    assert "pool mode transaction" in found["PP201"].summary
    assert "one client had backend" in evidence(found["PP201"])
    assert found["PP202"].severity == "warning"
    assert "advisory" in found["PP202"].summary
    for code in ("PP203", "PP204", "PP205"):
        assert found[code].state == "skipped"
        assert "stats_users = drill" in found[code].summary


def test_session_mode_is_found_by_trying_and_is_fine(look, pooler):
    started = pooler(pool_mode="session", admin_users="nobody")
    found = look(of(started), "PP201", "PP202")
    assert "pool mode session" in found["PP201"].summary
    assert found["PP202"].state == "fine"
    assert "as far as was seen" in found["PP202"].summary


def test_statement_mode_is_found_by_its_refusal(look, pooler):
    started = pooler(pool_mode="statement", admin_users="nobody")
    found = look(of(started))
    assert "pool mode statement" in found["PP201"].summary
    assert found["PP202"].state == "found"
    assert found["PP108"].state == "fine"


def test_a_pool_too_small_to_try_is_skipped_and_not_fine(look, pooler):
    started = pooler(pool_mode="transaction", admin_users="nobody", default_pool_size=1)
    finding = look(of(started), "PP202", patience=3)
    assert finding.state == "skipped"
    assert "mode is not known" in finding.summary


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "pg8000"])
def test_the_console_tells_mode_version_and_sizes(look, pooler, driver):
    started = pooler(
        pool_mode="transaction", client_idle_timeout=90, max_client_conn=40
    )
    found = look(of(started, driver), workers=4)
    assert "PgBouncer 1." in found["PP201"].summary
    assert "its console: pool_mode = transaction" in evidence(found["PP201"])
    assert "90 s" in found["PP203"].summary
    assert found["PP205"].severity == "error"
    assert "60 connections, and the pooler lets 40 clients in" in found["PP205"].summary
    assert found["PP101"].state == "skipped"
    version = started.command("SHOW VERSION")[0]["version"]
    if version == "PgBouncer 1.18.0":
        assert "CVE-2026-107350" in found["PP204"].summary


def test_a_pooler_that_fits_is_fine(look, pooler, make_engine):
    started = pooler(pool_mode="session", client_idle_timeout=90, query_wait_timeout=5)
    engine = make_engine(
        of(started), poolclass=poolproof.Pool, pool_size=3, max_overflow=0, max_idle=30
    )

    def states():
        found = look(engine, "PP203", "PP205", "PP401", "PP403", timeout_s=30)
        return {one.state for one in found.values()}

    # What another test has left on the server goes soon.
    eventually(lambda: states() == {"fine"})


def test_a_queue_in_the_pooler_longer_than_a_request_is_noted(look, pooler):
    finding = look(of(pooler(query_wait_timeout=120)), "PP203", timeout_s=30)
    assert "longer than a request may last (30 s)" in finding.summary


def test_more_sessions_at_rest_than_a_session_pooler_has_are_an_error(look, pooler):
    started = pooler(pool_mode="session", default_pool_size=8)
    finding = look(of(started), "PP205", workers=2)
    assert finding.severity == "error"
    assert "keeps one of 8 server sessions" in finding.summary


def test_what_of_a_session_an_application_uses_is_an_error_with_its_line(
    look, pooler, tmp_path
):
    from poolproof.doctor.deployment import Deployment
    from poolproof.doctor.target import read

    source = tmp_path / "jobs.py"
    source.write_text("x = 1\nsession.execute('select pg_advisory_lock(1)')\n")
    text = of(pooler()).render_as_string(hide_password=False)
    subject = read(text, Deployment())
    subject.sources = (source,)
    finding = look(subject, "PP202")
    assert finding.severity == "error"
    assert (finding.file, finding.line) == (str(source), 2)
    assert f"{source}:2: pg_advisory_lock" in evidence(finding)
    source.write_text("session.execute('select pg_advisory_xact_lock(1)')\n")
    assert look(subject, "PP202").severity == "warning"


def test_prepared_statements_through_an_old_pooler_are_an_error(
    look, pooler, make_engine
):
    started = pooler(pool_mode="transaction")
    url = of(started, "psycopg")
    prepared = findings_of(make_engine(url))
    assert any("psycopg prepares statements" in one.summary for one in prepared)
    never = make_engine(url, connect_args={"prepare_threshold": None})
    assert not any("prepares" in one.summary for one in findings_of(never))
    other = make_engine(of(started))
    assert not any("prepares" in one.summary for one in findings_of(other))


def findings_of(engine):
    from poolproof.doctor.catalogue import CHECKS
    from poolproof.doctor.run import examine, meet_server
    from poolproof.doctor.subject import Subject

    subject = Subject(engine=engine, shown="app", is_application=True)
    subject.patience = 20
    meet_server(subject)
    chosen = [check for check in CHECKS if check.code == "PP202"]
    return examine(subject, chosen).findings


def test_a_slow_way_is_noted_with_its_quantiles(look, pg, pg_url):
    def seen(url):
        """Look again where the machine was too busy to be done in time."""
        finding = look(url, "PP206", patience=2)
        return finding if finding.state != "skipped" else None

    proxy = Proxy(Address(host=pg.host, port=pg.port))
    with proxy:
        proxy.delay(0.008)
        slow = eventually(lambda: seen(pg_url("psycopg2").set(port=proxy.port)))
    near = eventually(lambda: seen(pg_url("psycopg2")))
    assert slow.severity == "note"
    for finding in (slow, near):
        assert "ping p50" in finding.summary
        assert "a fresh connection" in finding.summary
    assert "each statement of a request waits for the way" in slow.summary
    assert "each statement" not in near.summary


def test_several_addresses_times_the_timeout_are_seen(look, make_engine, pg_url, pg):
    where = f"{pg.host}:{pg.port}"
    url = f"postgresql+psycopg2://postgres@/postgres?host={where}&host=127.0.0.2:1"
    hosts = make_engine(f"{url}&connect_timeout=20")
    found = look(hosts, "PP208", "PP209")
    assert found["PP208"].severity == "warning"
    assert "40 s: 20 s for each of 2" in found["PP208"].summary
    assert found["PP209"].severity == "warning"
    short = make_engine(f"{url}&connect_timeout=3&target_session_attrs=read-write")
    found = look(short, "PP208", "PP209")
    assert {one.state for one in found.values()} == {"fine"}
    ours = make_engine(pg_url("psycopg2"), poolclass=poolproof.Pool)
    assert look(ours, "PP208").state == "fine"


@pytest.fixture(scope="module")
def network_pg(cluster_templates):
    """Run a server with TLS that listens on every address of this machine."""
    cluster = Cluster(newest_binaries(), settings={"listen_addresses": "*"})
    certificate, key = cluster.home / "long.crt", cluster.home / "long.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-days", "365", "-subj", "/CN=db", "-out", certificate, "-keyout", key),
        ],
        check=True,
        capture_output=True,
    )
    cluster.own(certificate)
    cluster.own(key)
    cluster.settings |= {
        "ssl": "on",
        "ssl_cert_file": str(certificate),
        "ssl_key_file": str(key),
    }
    for started in running(cluster):
        with (started.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all trust\n")
        url = started.url("psycopg").set(drivername="postgresql", query={})
        with psycopg.connect(url.render_as_string(False), autocommit=True) as one:
            one.execute("select pg_reload_conf()")
        yield started


@pytest.fixture(scope="module")
def address():
    """Return an address of this machine that is not the loopback's."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # of documents; nothing is sent
        except OSError:
            pytest.skip("no network but the loopback")
        return asked.getsockname()[0]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_network_without_checks_is_seen(look, network_pg, address, driver):
    url = network_pg.url("psycopg2").set(
        drivername=f"postgresql+{driver}", host=address, query={}
    )
    finding = look(url, "PP207")
    assert finding.severity == "warning", finding.summary
    assert "sslmode is prefer" in finding.summary


def test_a_network_in_clear_is_seen(look, network_pg, address):
    url = network_pg.url("psycopg2", sslmode="disable").set(host=address)
    assert "in clear" in look(url, "PP207").summary


def test_a_checked_server_is_fine(look, network_pg, address, tmp_path, make_engine):
    """With a certificate for its name, which this machine's address stands for."""
    roots = tmp_path / "roots.crt"
    roots.write_bytes((network_pg.home / "long.crt").read_bytes())
    url = network_pg.url("psycopg2").set(
        host="db",
        query={
            "hostaddr": address,
            "sslmode": "verify-full",
            "sslrootcert": str(roots),
        },
    )
    found = look(make_engine(url), "PP207", "PP210")
    assert found["PP207"].state == "fine"
    assert "the server's name is checked" in found["PP207"].summary
    assert found["PP210"].state == "fine"


def test_a_certificate_that_ends_soon_is_seen(look, debian_pg):
    finding = look(debian_pg.url("psycopg2"), "PP210")
    assert finding.severity == "warning"
    assert "ends in 1 day" in finding.summary


def test_a_server_without_tls_has_no_certificate(look, pg_url):
    assert look(pg_url("psycopg2"), "PP210").summary == "the server offers no TLS"

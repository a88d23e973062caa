"""A real PostgreSQL: its own ways of letting in, and what changes while we run."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import create_engine

from control.asking import as_text, ask_control_plane, ask_libpq, ask_psql, psql_knows
from control.letting_in import ROLES, SECRET, asked_by_root, cut_off
from plugins.threads import eventually
from poolproof import Lease
from poolproof.leases.table import LeaseTable

MODES = ("disable", "allow", "prefer", "require", "verify-full")


@pytest.fixture
def where(real):
    """Return where the server is."""
    return {"host": real.host, "port": real.port, "dbname": "postgres"}


@pytest.fixture
def client(root, tmp_path):
    """Return the certificate of a role, as parameters."""
    pair = root.issue("by_cert", names=(), addresses=(), common="by_cert")
    return {"sslcert": pair.path, "sslkey": pair.key_path}


def differing(cells) -> list[str]:
    wrong = []
    for cell in cells:
        text = as_text(cell)
        ours = ask_control_plane(text)
        theirs = [ask_libpq(text)]
        if psql_knows(cell):
            theirs.append(ask_psql(text))
        wrong += [
            f"{cell}:\n  libpq: {each}\n  control: {ours}"
            for each in theirs
            if each[0] != ours[0]
        ]
    return wrong


@pytest.mark.parametrize("role", ROLES)
def test_a_rule_lets_in_whom_it_lets_in_by_libpq(role, where, root, client):
    cells = []
    for mode in MODES:
        cell = {**where, "user": role, "sslmode": mode, "sslrootcert": root.path}
        cells += [
            cell,
            {**cell, "password": SECRET},
            {**cell, "password": "another"},
        ]
        if role == "by_cert":
            cells.append({**cell, **client})
    with_password = {**where, "user": role, "password": SECRET}
    cells += [
        {**with_password, "require_auth": way, "channel_binding": binding}
        for way in ("scram-sha-256", "none", "!scram-sha-256")
        for binding in ("prefer", "require")
    ]
    wrong = differing(cells)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("read_only", ["on", "off"])
def test_sessions_of_a_kind_are_taken_as_by_libpq(where, read_only):
    options = f"-c default_transaction_read_only={read_only}"
    kinds = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
    cells = [
        {**where, "user": "in_tls", "options": options, "target_session_attrs": kind}
        for kind in kinds
    ]
    wrong = differing(cells)
    assert not wrong, "\n".join(wrong)


def test_several_hosts(where):
    port = where["port"]
    both = {**where, "user": "by_scram", "host": "127.0.0.1,127.0.0.1"}
    wrong = differing(
        [
            {**both, "password": SECRET, "port": f"1,{port}"},
            {**both, "password": SECRET, "load_balance_hosts": "random"},
            {**both, "password": "another"},
            {**both, "password": SECRET, "hostaddr": "127.0.0.1,127.0.0.1"},
            {**both, "password": SECRET, "port": f"{port},{port},{port}"},
        ]
    )
    assert not wrong, "\n".join(wrong)


def test_a_passfile_is_read_as_by_libpq(where, home, monkeypatch):
    cell = {**where, "user": "by_scram"}
    escaped = SECRET.replace("\\", "\\\\").encode()
    line = b"127.0.0.1:*:*:by_scram:" + escaped
    path = home / ".pgpass"
    wrong = []
    for content, mode in (
        (line, 0o600),
        (line, 0o640),
        (b"#" + line, 0o600),
        ("*:*:*:by_scram:x\u2028y\n".encode() + line, 0o600),
        (b"other:*:*:*:caf\xe9\r\n" + line + b"\r\n", 0o600),
        (line + b"\r\r\n", 0o600),
        (b"*:*:*:*:caf\xe9", 0o600),
        (b"127.0.0.1:*:*:by:scram:x\n" + line, 0o600),
    ):
        path.write_bytes(content)
        path.chmod(mode)
        wrong += differing([cell, {**cell, "passfile": path}, {**cell, "host": ""}])
    monkeypatch.setenv("PGPASSFILE", str(home))
    wrong += differing([cell])
    assert not wrong, "\n".join(wrong)


def test_a_service_is_read_as_by_libpq(where, home, monkeypatch):
    lines = [f"{name}={value}" for name, value in where.items()]
    path = home / "services"
    path.write_text(
        "\n".join(["\v[ours]", " user=in_tls\v\r", "\v", *lines, "[bad]", "no"])
        + "\n[old]\nrequiressl=require\nuser=in_tls\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    named = ({"service": name} for name in ("ours", "bad", "old", "absent"))
    wrong = differing([*named, {"service": "ours", "user": "in_clear"}])
    monkeypatch.setenv("PGSERVICE", "ours")
    wrong += differing([{"dbname": "postgres"}, {"user": "by_scram"}])
    assert not wrong, "\n".join(wrong)


def test_a_unix_socket(real):
    cell = {"host": real.home, "port": real.port, "user": "postgres"}
    wrong = differing(
        [
            {**cell, "sslmode": mode, "channel_binding": binding}
            for mode in MODES
            for binding in ("prefer", "require")
        ]
    )
    assert not wrong, "\n".join(wrong)


# --- what changes while we run ------------------------------------------------------


def test_a_lease_goes_on_with_the_password_that_a_file_has_now(real, where, home):
    path = home / ".pgpass"

    def change(written, password=None):
        path.write_text(f"*:*:*:by_scram:{written}\n")
        path.chmod(0o600)
        with asked_by_root(real) as session:
            session.execute(
                psycopg.sql.SQL("alter role by_scram password {}").format(
                    password or written
                )
            )

    change("first")
    engine = create_engine(real.url("psycopg2"))
    dsn = as_text({**where, "user": "by_scram", "sslmode": "require"})
    try:
        LeaseTable(dsn).create()
        with Lease(engine, "rotated", control_dsn=dsn, ttl=9) as lease:
            change("second")
            cut_off(real, "by_scram")
            before = lease.stats().renewals
            eventually(lambda: lease.stats().renewals > before + 1)
            lease.check()
    finally:
        change(SECRET.replace("\\", "\\\\"), SECRET)
        engine.dispose()

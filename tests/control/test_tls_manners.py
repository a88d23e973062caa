"""Servers with and without TLS, in every mode; clients' certificates and keys."""

from __future__ import annotations

import ssl

import pytest
from cryptography.hazmat.primitives import serialization

from control.asking import as_text, ask_control_plane, ask_libpq, disagreements
from plugins.lying import PASSWORD

WHERE = {"host": "127.0.0.1", "password": PASSWORD}
MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
MANNERS = (
    *({"tls": tls} for tls in ("on", "off", "error", "garbage", "cut")),
    {"rejects": "tls"},
    {"rejects": "clear"},
    {"rejects": "tls", "tls": "off"},
    {"agrees": False},
    {"highest": ssl.TLSVersion.TLSv1_2},
    {"highest": ssl.TLSVersion.TLSv1_1},
)


@pytest.mark.parametrize("manners", MANNERS, ids=str)
def test_a_server_is_met_as_by_libpq_in_every_mode(manners, serve, root):
    server = serve(**manners)
    cells = [{**WHERE, "sslmode": m, "sslrootcert": root.path} for m in MODES]
    cells += [{**WHERE, "sslmode": mode} for mode in MODES]
    cells += [
        {**WHERE, "sslmode": mode, "sslnegotiation": "direct"}
        for mode in ("prefer", "require")
    ]
    cells += [
        {**WHERE, "ssl_min_protocol_version": lowest, "sslmode": mode}
        for lowest in ("", "TLSv1", "TLSv1.3")
        for mode in ("prefer", "require")
    ]
    cells.append({**WHERE, "ssl_max_protocol_version": "TLSv1.2", "sslmode": "require"})
    count, wrong = disagreements(server, cells)
    assert not wrong, "\n".join(wrong)
    assert count == len(cells)


def test_prefer_goes_on_in_clear_where_tls_is_rejected(serve):
    server = serve(rejects="tls")
    whole = {**WHERE, "port": server.port, "user": "u", "sslmode": "prefer"}
    assert ask_control_plane(as_text(whole))[0]
    assert [met.over_tls for met in server.take()] == [True, False]


@pytest.mark.parametrize("ask", [ask_libpq, ask_control_plane])
def test_an_error_in_place_of_tls_is_an_answer_and_nobody_else_is_asked(ask, serve):
    first, second = serve(tls="error"), serve()
    both = {**WHERE, "host": "127.0.0.1,127.0.0.1", "user": "u"}
    both["port"] = f"{first.port},{second.port}"
    is_in, _ = ask(as_text(both))
    assert not is_in
    assert len(first.take()) == 1
    assert second.take() == []


@pytest.fixture
def client(root, tmp_path):
    """Return a client's certificate and its key in several forms, by name."""
    pair = root.issue("client", names=(), addresses=(), common="u")
    der, locked = tmp_path / "client.der", tmp_path / "locked.key"
    pkcs8 = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    der.write_bytes(pair.key.private_bytes(serialization.Encoding.DER, pkcs8, plain))
    lock = serialization.BestAvailableEncryption(b"open")
    locked.write_bytes(pair.key.private_bytes(serialization.Encoding.PEM, pkcs8, lock))
    readable, group = tmp_path / "readable.key", tmp_path / "group.key"
    for path in (readable, group):
        path.write_bytes(pair.key_path.read_bytes())
    for path, mode in (
        (der, 0o600),
        (locked, 0o600),
        (readable, 0o644),
        (group, 0o640),
    ):
        path.chmod(mode)
    return {
        "crt": pair.path,
        "key": pair.key_path,
        "der": der,
        "locked": locked,
        "readable": readable,
        "group": group,
        "other": root.issue("client-other").key_path,
        "absent": tmp_path / "absent",
        "directory": tmp_path,
    }


def test_clients_certificates_and_keys(serve, root, client):
    server = serve(wants=str(root.path), auth="trust")
    keys = ("key", "der", "locked", "readable", "group", "other", "absent", "directory")
    cells = [
        {**WHERE, "sslmode": mode, "sslcert": client["crt"], "sslkey": client[key]}
        for mode in ("prefer", "require")
        for key in keys
        # libpq asks at the terminal what opens this one.
        if key != "locked"
    ]
    own = {**WHERE, "sslmode": "require", "sslcert": client["crt"]}
    cells += [
        own,
        {**own, "sslkey": client["locked"], "sslpassword": "open"},
        {**own, "sslkey": client["locked"], "sslpassword": "shut"},
        {**own, "sslkey": client["key"], "sslcertmode": "disable"},
        {**own, "sslkey": client["key"], "sslcertmode": "allow"},
        {**WHERE, "sslcert": client["absent"], "sslkey": client["key"]},
        {**WHERE, "sslcert": client["directory"] / "absent" / "file"},
        {**WHERE, "sslcert": client["key"], "sslkey": client["key"]},
    ]
    _, wrong = disagreements(server, cells)
    assert not wrong, "\n".join(wrong)


def test_a_client_s_certificate_is_sent(serve, root, client, home):
    server = serve(wants=str(root.path), auth="trust")
    whole = {**WHERE, "port": server.port, "user": "u", "sslmode": "require"}
    given = {**whole, "sslcert": client["crt"], "sslkey": client["key"]}
    assert ask_control_plane(as_text(given))[0]
    assert [met.certificate for met in server.take()] == [True]
    directory = home / ".postgresql"
    directory.mkdir()
    for name, key in (("postgresql.crt", "crt"), ("postgresql.key", "key")):
        (directory / name).write_bytes(client[key].read_bytes())
        (directory / name).chmod(0o600)
    assert ask_control_plane(as_text(whole))[0]
    assert [met.certificate for met in server.take()] == [True]


def test_an_encrypted_key_without_its_password_asks_nobody(serve, client):
    server = serve(auth="trust")
    whole = {**WHERE, "port": server.port, "user": "u", "sslmode": "require"}
    whole |= {"sslcert": client["crt"], "sslkey": client["locked"]}
    is_in, why = ask_control_plane(as_text(whole))
    assert not is_in
    assert "locked.key" in why

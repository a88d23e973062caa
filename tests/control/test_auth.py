"""Who may ask for a password, and how: libpq and the control plane answer the same."""

from __future__ import annotations

import pytest

from control.asking import as_text, ask_control_plane, disagreements
from plugins.lying import PASSWORD

TRUSTED = {"host": "127.0.0.1", "password": PASSWORD}
WAYS = ("trust", "password", "md5", "scram", "scram-plus", "gss", "sspi", "unknown")
ALLOWED = (
    *("scram-sha-256", "md5", "password", "none", "gss", "password,md5"),
    *("!password", "!none", "!scram-sha-256,!md5", "scram-sha-256,none", "sspi,gss"),
)


@pytest.mark.parametrize("tls", ["on", "off"])
@pytest.mark.parametrize("auth", WAYS)
def test_a_way_of_asking_is_met_as_by_libpq(auth, tls, serve):
    server = serve(auth=auth, tls=tls)
    cells = [{**TRUSTED, "require_auth": allowed} for allowed in ALLOWED]
    cells += [
        {**TRUSTED, "channel_binding": binding}
        for binding in ("disable", "prefer", "require")
    ]
    cells += [
        TRUSTED,
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1", "password": "another"},
        {**TRUSTED, "sslmode": "disable"},
        {**TRUSTED, "sslmode": "require", "require_auth": "!password,!md5"},
    ]
    count, wrong = disagreements(server, cells)
    assert not wrong, "\n".join(wrong)
    assert count == len(cells)


SIGNATURES = ("signed by RSA-PSS", "signed by RSA-PSS and SHA-512")


@pytest.mark.parametrize(
    "kind", ["P-521", "SHA-512", "RSA", "Ed25519", "version 1", *SIGNATURES]
)
def test_a_password_is_bound_to_the_certificate(kind, serve):
    server = serve(kind, auth="scram-plus")
    bindings = ("disable", "prefer", "require")
    _, wrong = disagreements(
        server, [{**TRUSTED, "channel_binding": binding} for binding in bindings]
    )
    assert not wrong, "\n".join(wrong)
    whole = {**TRUSTED, "port": server.port, "user": "u", "channel_binding": "require"}
    assert ask_control_plane(as_text(whole))[0]


def test_nobody_is_bound_to_a_signature_without_a_hash(serve):
    server = serve("signed by Ed25519", auth="scram-plus")
    bindings = ("disable", "prefer", "require")
    _, wrong = disagreements(
        server, [{**TRUSTED, "channel_binding": binding} for binding in bindings]
    )
    assert not wrong, "\n".join(wrong)


# What makes libpq send nothing to a man in the middle.
GUARDS = (
    {"sslrootcert": "system"},
    {"require_auth": "scram-sha-256"},
    {"channel_binding": "require"},
    {"sslmode": "verify-full", "sslcrl": "/not/there"},
    {"require_auth": "!password"},
    {"require_auth": "none"},
    {"sslnegotiation": "direct", "sslmode": "verify-ca"},
    {"gssencmode": "require"},
    {"sslcertmode": "require", "sslmode": "require"},
    {"ssl_min_protocol_version": "TLSv1.3", "sslmode": "require"},
)


@pytest.mark.parametrize("guard", GUARDS, ids=str)
def test_a_man_in_the_middle_learns_no_password(guard, serve, root):
    """He has a certificate of his own, TLS 1.2, and asks for the password in clear."""
    import ssl

    man = serve("self-signed", highest=ssl.TLSVersion.TLSv1_2)
    if guard.get("sslmode", "").startswith("verify"):
        guard = {**guard, "sslrootcert": root.path}
    _, wrong = disagreements(man, [{**TRUSTED, **guard}])
    assert not wrong, "\n".join(wrong)
    whole = {**TRUSTED, "port": man.port, "user": "u", **guard}
    is_in, why = ask_control_plane(as_text(whole))
    assert not is_in
    assert all(not met.sent for met in man.take())
    assert PASSWORD not in why


def test_the_control_plane_says_what_it_refused(serve):
    server = serve(auth="password")
    said = []
    for guard in ({"require_auth": "md5"}, {"channel_binding": "require"}):
        whole = {**TRUSTED, "port": server.port, "user": "u", **guard}
        said.append(ask_control_plane(as_text(whole))[1])
    assert "require_auth" in said[0]
    assert "channel_binding" in said[1]

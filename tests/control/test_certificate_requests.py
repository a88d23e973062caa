"""`sslcertmode`: whether a server must ask for a client's certificate, as by libpq."""

from __future__ import annotations

import ssl

import pytest

from control.asking import as_text, ask_control_plane, ask_libpq, disagreements
from plugins.lying import PASSWORD
from plugins.threads import Task

WHERE = {"host": "127.0.0.1", "password": PASSWORD}
MODES = ("disable", "allow", "prefer", "require")
MANNERS = (
    {"asks": True, "highest": ssl.TLSVersion.TLSv1_2},
    {"asks": True, "auth": "scram-plus"},
    {"asks": True, "auth": "trust"},
    {"asks": True, "rejects": "clear"},
    {"asks": False},
    {"asks": False, "auth": "trust"},
    {"asks": False, "rejects": "tls"},
    {"asks": True, "tls": "off"},
    {"asks": True, "tls": "off", "auth": "trust"},
)


@pytest.fixture(scope="session")
def own(root):
    """Return the certificate of a client, as parameters."""
    pair = root.issue("asked-client", names=(), addresses=(), common="by_cert")
    return {"sslcert": pair.path, "sslkey": pair.key_path}


@pytest.mark.parametrize("manners", MANNERS, ids=str)
def test_a_server_that_asks_or_does_not_is_met_as_by_libpq(manners, serve, root, own):
    manners = dict(manners)
    server = serve(wants=str(root.path) if manners.pop("asks") else "", **manners)
    trusting = {**WHERE, "sslrootcert": root.path}
    cells = [
        {**trusting, **more, "sslmode": mode, "sslcertmode": certificates}
        for mode in MODES
        for certificates in ("disable", "allow", "require")
        for more in ({}, own)
    ]
    count, wrong = disagreements(server, cells)
    assert not wrong, "\n".join(wrong)
    assert count == len(cells)


def test_an_attempt_that_failed_says_nothing_of_the_next(serve, root, own):
    """Under TLS it was asked for; libpq keeps that in mind, and goes in in clear."""
    server = serve(wants=str(root.path), rejects="tls")
    whole = {**WHERE, **own, "port": server.port, "user": "u"}
    for mode, differs in (("prefer", True), ("allow", False), ("require", False)):
        text = as_text({**whole, "sslmode": mode, "sslcertmode": "require"})
        is_in, _ = ask_libpq(text)
        assert is_in == differs
        server.take()
        is_in, _ = ask_control_plane(text)
        assert not is_in
        assert not any(met.sent for met in server.take())


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("auth", ["password", "md5", "scram", "trust"])
def test_who_must_get_a_certificate_and_does_not_is_sent_nothing(
    auth, asks, serve, root, own
):
    """When libpq looks, at the end, it has sent the password."""
    server = serve(wants=str(root.path) if asks else "", auth=auth)
    whole = {**WHERE, "port": server.port, "user": "u", "sslmode": "require"}
    whole |= {"sslcertmode": "require", **({} if asks else own)}
    is_in, why = ask_control_plane(as_text(whole))
    assert not is_in
    assert "sslcertmode" in why
    assert [(met.sent, met.entered) for met in server.take()] == [([], False)]
    is_in, _ = ask_control_plane(as_text({**whole, "sslcertmode": "allow"}))
    assert is_in


def test_each_of_several_connections_notes_what_its_own_server_asked(serve, root, own):
    servers = [serve(wants=str(root.path)), serve(), serve(wants=str(root.path))] * 4
    whole = {**WHERE, **own, "user": "u", "sslmode": "require"}
    whole["sslcertmode"] = "require"
    tasks = [
        Task(ask_control_plane, as_text({**whole, "port": server.port}))
        for server in servers
    ]
    assert [task.result()[0] for task in tasks] == [True, False, True] * 4


@pytest.mark.parametrize("role", ["in_tls", "in_clear", "by_cert", "by_scram"])
def test_a_real_server_that_asks_is_met_as_by_libpq(role, real, own):
    """It asks everybody, since it knows an authority; a unix socket asks nobody."""
    wrong, let_in = [], set()
    for host in (real.host, real.home):
        for mode in ("disable", "allow", "prefer", "require"):
            for given in ({}, own):
                cell = {"host": host, "port": real.port, "sslmode": mode, **given}
                cell |= {"dbname": "postgres", "user": role, "sslcertmode": "require"}
                theirs, ours = (
                    ask_libpq(as_text(cell)),
                    ask_control_plane(as_text(cell)),
                )
                # See above: it was asked in another attempt.
                late = (role, host, mode) == ("in_clear", real.host, "prefer")
                if theirs[0] != (ours[0] or (late and bool(given))):
                    wrong.append(f"{cell}:\n  libpq: {theirs}\n  control: {ours}")
                if ours[0]:
                    let_in.add((host, mode, bool(given)))
    assert not wrong, "\n".join(wrong)
    assert bool(let_in) == (role in {"in_tls", "by_cert"})

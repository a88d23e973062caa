"""libpq and the control plane judge every kind of certificate alike, in every mode."""

from __future__ import annotations

import subprocess

import pytest

from control.asking import disagreements, variables
from plugins.lying import PASSWORD

KINDS = (
    *("good", "wrong host", "wrong authority", "self-signed", "expired", "future"),
    *("revoked", "version 1", "common name alone", "another common name"),
    *("common name hidden", "wildcard", "wildcard of another level"),
    *("address as name", "P-521", "SHA-512", "Ed25519", "signed by Ed25519", "RSA"),
    *("RSA, too short", "for clients"),
)
BY_NAME = {"host": "db.test", "hostaddr": "127.0.0.1", "password": PASSWORD}
BY_ADDRESS = {"host": "127.0.0.1", "password": PASSWORD}


@pytest.fixture(scope="session")
def lists(root):
    """Return a directory of revocation lists, as OpenSSL looks into one."""
    directory = root.directory / "lists"
    directory.mkdir()
    crl = root.directory / "root.crl"
    command = ["openssl", "crl", "-hash", "-noout", "-in", crl]
    said = subprocess.run(command, check=True, capture_output=True, timeout=200)
    (directory / f"{said.stdout.decode().strip()}.r0").write_bytes(crl.read_bytes())
    return directory


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_is_judged_as_by_libpq(kind, serve, root, lists):
    server = serve(kind)
    trusting = {"sslrootcert": root.path}
    crl = {"sslcrl": root.directory / "root.crl"}
    cells = [
        {**BY_NAME, "sslmode": "prefer"},
        {**BY_NAME, "sslmode": "require"},
        {**BY_NAME, "sslmode": "verify-full"},
        {**BY_NAME, "sslmode": "prefer", **trusting},
        {**BY_NAME, "sslmode": "require", **trusting},
        {**BY_NAME, "sslmode": "verify-ca", **trusting},
        {**BY_NAME, "sslmode": "verify-full", **trusting},
        {**BY_ADDRESS, "sslmode": "verify-full", **trusting},
        {**BY_NAME, "sslmode": "verify-full", **trusting, **crl},
        {**BY_NAME, "sslmode": "verify-ca", **trusting, "sslcrldir": lists},
        # No list, but a certificate: libpq then asks for lists and finds none.
        {**BY_NAME, "sslmode": "verify-full", **trusting, "sslcrl": root.path},
        {**BY_NAME, "sslrootcert": "system"},
    ]
    count, wrong = disagreements(server, cells)
    assert not wrong, "\n".join(wrong)
    assert count == len(cells)


@pytest.mark.parametrize("kind", ["good", "wrong host", "self-signed", "expired"])
def test_the_system_s_roots_are_those_of_openssl(kind, serve, root):
    with variables(SSL_CERT_FILE=root.path):
        _, wrong = disagreements(
            serve(kind),
            [
                {**BY_NAME, "sslrootcert": "system"},
                {**BY_NAME, "sslrootcert": "system", "sslmode": "require"},
            ],
        )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("validity", ["good", "expired", "future"])
def test_a_certificate_that_is_its_own_root_has_its_time(validity, serve, root):
    from plugins.certificates import DAY

    more = {
        "good": {},
        "expired": {"begins": -3 * DAY, "ends": -DAY},
        "future": {"begins": DAY},
    }[validity]
    pair = root.sign_itself(f"anchor-{validity}", **more)
    cells = [
        {**BY_NAME, "sslmode": mode, "sslrootcert": pair.path}
        for mode in ("require", "verify-ca", "verify-full")
    ]
    _, wrong = disagreements(serve(pair), cells)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", ["good", "self-signed", "revoked"])
def test_files_in_the_home_count(kind, serve, root, home):
    directory = home / ".postgresql"
    directory.mkdir()
    (directory / "root.crt").write_bytes(root.path.read_bytes())
    modes = ("prefer", "require", "verify-full")
    cells = [{**BY_NAME, "sslmode": mode} for mode in modes]
    server = serve(kind)
    _, wrong = disagreements(server, cells)
    (directory / "root.crl").write_bytes((root.directory / "root.crl").read_bytes())
    _, more = disagreements(server, cells)
    assert not wrong + more, "\n".join(wrong + more)


def test_files_that_are_not_there_or_hold_nothing(serve, root, tmp_path):
    absent, empty = tmp_path / "absent", tmp_path / "empty"
    empty.write_text("nothing\n")
    modes = ("prefer", "require", "verify-ca")
    cells = [
        {**BY_NAME, "sslmode": mode, "sslrootcert": file}
        for mode in modes
        for file in (absent, empty)
    ] + [
        {**BY_NAME, "sslmode": "verify-ca", "sslrootcert": root.path, name: file}
        for name in ("sslcrl", "sslcrldir")
        for file in (absent, empty)
    ]
    _, wrong = disagreements(serve(), cells)
    assert not wrong, "\n".join(wrong)


def test_variables_stand_in_for_parameters(serve, root):
    server = serve("revoked")
    wrong = []
    for values in (
        {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": root.path},
        {"PGSSLROOTCERT": root.path, "PGSSLCRL": root.directory / "root.crl"},
        {"PGSSLROOTCERT": "system"},
        {"PGREQUIREAUTH": "scram-sha-256"},
        {"PGREQUIRESSL": "1"},
        {"PGCHANNELBINDING": "require"},
        {"PGSSLMINPROTOCOLVERSION": "TLSv1.3", "PGSSLMAXPROTOCOLVERSION": "TLSv1.2"},
        {"PGSSLNEGOTIATION": "direct"},
    ):
        with variables(**values):
            wrong += disagreements(
                server, [BY_NAME, {**BY_NAME, "sslmode": "require"}]
            )[1]
    assert not wrong, "\n".join(wrong)

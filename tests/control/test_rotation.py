"""Files that change while the process runs are read anew for each connection."""

from __future__ import annotations

import pytest

from control.asking import as_text
from plugins.lying import PASSWORD, STATEMENT_REFUSED
from poolproof import ControlError
from poolproof.leases.table import LeaseTable

WHERE = {"host": "127.0.0.1", "user": "u", "dbname": "d", "sslmode": "verify-full"}


def outcome(table) -> str | None:
    with pytest.raises(ControlError) as caught:
        table.entries()
    return caught.value.sqlstate


@pytest.fixture
def changing(tmp_path):
    """Return a file that is written again."""
    return tmp_path / "changing"


def test_the_authority_that_a_file_holds_now_is_trusted(serve, root, pairs, changing):
    server = serve()
    changing.write_bytes(pairs["self-signed"].path.read_bytes())
    given = {**WHERE, "port": server.port, "password": PASSWORD}
    table = LeaseTable(as_text({**given, "sslrootcert": changing}))
    assert outcome(table) is None
    changing.write_bytes(root.path.read_bytes())
    assert outcome(table) == STATEMENT_REFUSED
    changing.unlink()
    assert outcome(table) is None


def test_a_list_of_revoked_certificates_may_come_later(serve, root, changing):
    server = serve("revoked")
    given = {**WHERE, "port": server.port, "password": PASSWORD}
    given |= {"sslrootcert": root.path, "sslcrl": changing}
    table = LeaseTable(as_text(given))
    assert outcome(table) == STATEMENT_REFUSED
    changing.write_bytes((root.directory / "root.crl").read_bytes())
    assert outcome(table) is None


def test_the_client_s_certificate_of_now_is_sent(serve, root, changing, tmp_path):
    server = serve(wants=str(root.path), auth="trust")
    key = tmp_path / "key"
    given = {**WHERE, "port": server.port, "sslrootcert": root.path}
    table = LeaseTable(as_text({**given, "sslcert": changing, "sslkey": key}))
    assert outcome(table) == STATEMENT_REFUSED
    assert [met.certificate for met in server.take()] == [False]
    pair = root.issue("rotated", names=(), addresses=(), common="u")
    changing.write_bytes(pair.path.read_bytes())
    key.write_bytes(pair.key_path.read_bytes())
    key.chmod(0o600)
    assert outcome(table) == STATEMENT_REFUSED
    assert [met.certificate for met in server.take()] == [True]


def test_the_password_that_a_file_holds_now_is_sent(serve, root, home):
    server = serve()
    passfile = home / ".pgpass"
    given = {**WHERE, "port": server.port, "sslrootcert": root.path}
    table = LeaseTable(as_text(given))
    passfile.write_text("*:*:*:*:another\n")
    passfile.chmod(0o600)
    assert outcome(table) == "28P01"
    passfile.write_text(f"*:*:*:*:{PASSWORD}\n")
    assert outcome(table) == STATEMENT_REFUSED

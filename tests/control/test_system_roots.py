"""`sslrootcert=system` without variables: the roots are where the system has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from control.asking import REFUSED, as_text, ask_control_plane
from plugins.lying import PASSWORD

# Debian's, as the tests' PostgreSQL is.
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# With mounts of its own, which nobody else sees.
ALONE = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
MOUNTED = (*ALONE, "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && "$@"', "sh")
ASKS = """
import sys
from poolproof import ControlError
from poolproof.leases.table import LeaseTable
try:
    LeaseTable(sys.argv[1], "no_such_table").entries()
except ControlError as error:
    print(error)
"""


def may_mount() -> bool:
    """Tell whether there is such a file, and mounts of one's own can be had."""
    try:
        tried = subprocess.run(
            [*MOUNTED, "/dev/null", str(BUNDLE), "true"],
            capture_output=True,
            check=False,
            timeout=200,
        )
    except OSError:
        return False
    return tried.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no mounts of one's own are to be had")
def test_who_is_trusted_by_the_system_is_trusted(serve, root, tmp_path, monkeypatch):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    server = serve()
    where = {"host": "db.test", "hostaddr": "127.0.0.1", "port": server.port}
    text = as_text(
        {**where, "user": "u", "password": PASSWORD, "sslrootcert": "system"}
    )
    is_in, why = ask_control_plane(text)
    assert not is_in
    assert "not trusted" in why
    assert not any(met.sent for met in server.take())
    bundle = tmp_path / "bundle"
    bundle.write_bytes(BUNDLE.read_bytes() + root.path.read_bytes())
    asked = subprocess.run(
        [*MOUNTED, str(bundle), str(BUNDLE), sys.executable, "-c", ASKS, text],
        capture_output=True,
        check=True,
        timeout=200,
    )
    assert REFUSED in asked.stdout.decode()
    assert [met.entered for met in server.take()] == [True]

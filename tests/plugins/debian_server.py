"""Debian's PostgreSQL with TLS: what the embedded server cannot do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plugins.cluster import Cluster
from plugins.server import Observer, running, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/usr/lib/postgresql")


def newest_binaries() -> Path:
    """Return where the programs of the newest PostgreSQL of the Debian package are."""
    found = sorted(
        (path for path in ROOT.glob("*/bin") if (path / "initdb").exists()),
        key=lambda path: [int(n) for n in re.findall(r"\d+", path.parent.name)],
    )
    if not found:
        unavailable("no PostgreSQL of the system: install Debian's 'postgresql'")
    return found[-1]


@pytest.fixture(scope="session")
def debian_pg(cluster_templates: None) -> Iterator[Cluster]:
    """Run the newest PostgreSQL of the Debian package, with TLS on."""
    if shutil.which("openssl") is None:
        unavailable("no certificate for TLS: install Debian's package 'openssl'")
    cluster = Cluster(newest_binaries())
    certificate, key = self_signed(cluster.home)
    cluster.own(certificate)
    cluster.own(key)
    cluster.settings |= {
        "ssl": "on",
        "ssl_cert_file": str(certificate),
        "ssl_key_file": str(key),
    }
    yield from running(cluster)


@pytest.fixture(scope="session")
def debian_observer(debian_pg: Cluster) -> Iterator[Observer]:
    """Look at the TLS server's sessions and data from outside."""
    watching = Observer(debian_pg)
    try:
        yield watching
    finally:
        watching.close()


def self_signed(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine's loopback address, valid for two days.

    Args:
        directory: Where the two files are written.

    Returns:
        The paths of the certificate and of its key.
    """
    certificate, key = directory / "server.crt", directory / "server.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", certificate, "-keyout", key),
        ],
        check=True,
        capture_output=True,
        timeout=200,
    )
    return certificate, key

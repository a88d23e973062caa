"""A home without files, and certificates of every kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from control.letting_in import started
from plugins.certificates import Authority, Pair, every_kind
from plugins.lying import LyingServer, Manners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugins.cluster import Cluster


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Authority, dict[str, Pair]]:
    """Make the authority that is trusted, and a certificate of every kind."""
    return every_kind(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def root(made) -> Authority:
    """Return the authority that is trusted."""
    return made[0]


@pytest.fixture(scope="session")
def pairs(made) -> dict[str, Pair]:
    """Return the certificates of servers, by kind."""
    return made[1]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """Have a home without files, and nothing of libpq's in the environment."""
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    return place


@pytest.fixture
def serve(pairs) -> Iterator[Callable[..., LyingServer]]:
    """Return a function that starts a server, by its certificate and manners."""
    servers = []

    def start(kind: str = "good", **manners) -> LyingServer:
        pair = pairs[kind] if isinstance(kind, str) else kind
        servers.append(LyingServer(pair, Manners(**manners)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def real(cluster_templates, root) -> Iterator[Cluster]:
    """Run Debian's PostgreSQL with a rule for each way of letting somebody in."""
    yield from started(root)

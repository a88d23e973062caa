"""What the fault tests share: a proxy, engines, and what the guard reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

import poolproof
from plugins.harm import Proxy
from poolproof.drill.proxy import Proxy as CountingProxy
from poolproof.drill.target import Target
from poolproof.faults import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugins.cluster import Cluster
    from poolproof import FaultEvent


@pytest.fixture
def proxy(pg: Cluster) -> Iterator[Proxy]:
    made = Proxy((pg.host, pg.port))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def own_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a test a journal of its own."""
    ring = journal._Ring(journal._native.generation())
    monkeypatch.setattr(journal, "_ring", ring)


@pytest.fixture
def watched(pg: Cluster) -> Iterator[CountingProxy]:
    """Run the proxy that counts what passes."""
    target = Target.parse(pg.url("psycopg2").render_as_string(hide_password=False))
    with CountingProxy(target.address()) as made:
        yield made


@pytest.fixture
def make_engine(pg: Cluster) -> Iterator[Callable[..., sa.Engine]]:
    """Return a function that makes engines, which are disposed of at the end."""
    made: list[sa.Engine] = []

    def make(
        driver: str, via: Proxy | CountingProxy | None = None, **options: Any
    ) -> sa.Engine:
        user = options.pop("user", "postgres")
        url = pg.url(driver).set(username=user)
        if via is not None:
            url = url.set(port=via.port)
        engine = sa.create_engine(url, **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture
def events() -> Iterator[list[FaultEvent]]:
    """Return a list that every event is put into."""
    seen: list[FaultEvent] = []
    remove = poolproof.on_fault(seen.append)
    yield seen
    remove()

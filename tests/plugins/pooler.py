"""A real PgBouncer in front of the embedded PostgreSQL of the tests."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from plugins.server import unavailable
from poolproof.drill.pooler import Pooler, program
from poolproof.drill.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugins.cluster import Cluster


class StartPooler(Protocol):
    """The signature of what the fixture `pooler` returns."""

    def __call__(self, **settings: str | float) -> Pooler:
        """Start a PgBouncer with these lines of its ini file."""


@pytest.fixture
def pooler(pg: Cluster) -> Iterator[StartPooler]:
    """Start PgBouncers in front of *pg*; they go when the test ends.

    The URL of one is ``pooler(pool_mode="transaction").url``, for a driver with
    ``.set(drivername="postgresql+psycopg2")``.
    """
    if program() is None:
        unavailable("no PgBouncer: install Debian's package 'pgbouncer'")
    with ExitStack() as stack:
        behind = Target.parse(pg.url("psycopg2").render_as_string(hide_password=False))
        yield lambda **settings: stack.enter_context(Pooler(behind, **settings))

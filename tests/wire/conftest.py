"""Wires of the native driver, without the driver around them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from poolproof import _native
from poolproof.drivers.conninfo import conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugins.server import MakeUrl


@pytest.fixture
def make_wire(pg_url: MakeUrl) -> Iterator[Callable[..., _native.Wire]]:
    """Connect; what is connected is closed at the end."""
    made: list[_native.Wire] = []
    owner = os.getpid()

    def make(
        *, url: Any = None, timeout_s: float | None = 20, wait: Any = None, **more: Any
    ) -> _native.Wire:
        where = (url or pg_url("psycopg2")).set(drivername="postgresql")
        words = {name: str(value) for name, value in more.items()}
        place = conninfo(where.render_as_string(hide_password=False), words)
        wire = _native.Wire.connect(place, timeout_s=timeout_s, wait=wait)
        made.append(wire)
        return wire

    yield make
    if os.getpid() == owner:
        for wire in made:
            wire.close()


@pytest.fixture
def wire(make_wire: Callable[..., _native.Wire]) -> _native.Wire:
    """Return one that is connected."""
    return make_wire()


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks: None) -> None:
    """Leave no socket, thread or process behind."""

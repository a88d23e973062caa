"""How many connections several processes may open, against what the server has."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

import poolproof
from poolproof.integrations import capacity


@pytest.fixture
def slots(observer):
    return observer.value(
        "select current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
        " - current_setting('reserved_connections')::int"
    )


@pytest.mark.parametrize("stranded", [False, True])
def test_the_control_planes_connections_count(pg_url, slots, stranded):
    engine = create_engine(
        pg_url("psycopg2"),
        poolclass=poolproof.Pool,
        pool_size=slots - 1,
        max_overflow=0,
        end_stranded_backends=stranded,
    )
    ((fits, said),) = capacity.check([engine.pool], processes=1)
    assert fits is not stranded
    if stranded:
        assert f"1 workers × {slots + 1} (pool_size + max_overflow, and 2" in said
        assert f"but the server has {slots} slots" in said
    else:
        assert said.endswith(
            f"= {slots - 1} connections fit into the server's {slots} slots "
            "(max_connections without the reserved ones)"
        )
    engine.dispose()

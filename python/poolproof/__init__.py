"""A PostgreSQL connection pool for SQLAlchemy that survives forks.

`create_engine(url, poolclass=poolproof.Pool)` is all there is to do.
"""

from __future__ import annotations

from poolproof import _sqlalchemy as _sqlalchemy  # first: refuses what it cannot stand on
from poolproof.errors import ConnectionForked, PoolTimeout
from poolproof.fork import after_fork
from poolproof.pool import Pool
from poolproof.stats import Holder, PoolStats

__all__ = [
    "ConnectionForked",
    "Holder",
    "Pool",
    "PoolStats",
    "PoolTimeout",
    "after_fork",
]

"""A PostgreSQL connection pool for SQLAlchemy that survives forks.

`create_engine(url, poolclass=poolproof.Pool)` is all there is to do.
"""

from __future__ import annotations

# First: refuses a SQLAlchemy that the pool cannot stand on.
from poolproof import _sqlalchemy as _sqlalchemy
from poolproof._native import __version__
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
    "__version__",
    "after_fork",
]

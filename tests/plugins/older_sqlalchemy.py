"""What newer SQLAlchemys have and tests use, for the older ones they are run on too."""

from __future__ import annotations

from sqlalchemy.pool import PoolProxiedConnection

if not hasattr(PoolProxiedConnection, "__enter__"):  # from 2.0.48 on
    PoolProxiedConnection.__enter__ = lambda self: self
    PoolProxiedConnection.__exit__ = lambda self, *_: self.close()

"""Luigi."""

from __future__ import annotations

def install(engine):
    pass

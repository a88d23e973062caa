"""What goes wrong with metrics, in one sentence."""

from __future__ import annotations

__all__ = ["MetricsError"]


class MetricsError(RuntimeError):
    """Metrics cannot be kept or read as asked: the sentence says what to try."""

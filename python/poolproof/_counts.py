"""How often something happened, without a lock."""

from __future__ import annotations

__all__ = ["Counts"]


class Counts:
    """How often something happened, by a word for each kind. Only grows."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, word: str) -> None:
        """Count one.

        Args:
            word: One of the documents' list.
        """
        counts = self._counts
        counts.setdefault(word, 0)
        # The interpreter changes threads at calls and jumps, and here is none.
        counts[word] += 1

    def copy(self) -> dict[str, int]:
        """Return the counts at this instant."""
        return dict(self._counts)

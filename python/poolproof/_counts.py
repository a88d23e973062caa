"""How often something happened, without a lock."""

from __future__ import annotations

from poolproof import _native

__all__ = ["Counts", "Tallies"]


class Counts:
    """How often something happened, by a word for each kind. Only grows."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, _native.Counter] = {}

    def add(self, word: str, more: int = 1) -> None:
        """Count one.

        Args:
            word: One of the documents' list.
            more: How many, where it is not one.
        """
        counter = self._counts.get(word)
        if counter is None:
            # One step on a dictionary: of two threads both count in the first's.
            counter = self._counts.setdefault(word, _native.Counter())
        counter.add(more)

    def copy(self) -> dict[str, int]:
        """Return the counts at this instant."""
        return {word: counter.value for word, counter in list(self._counts.items())}


class Tallies:
    """What is counted of the errors and the units of work of one pool, of any class.

    Attributes:
        faults: Faults, by fault and cost with a colon between.
        transactions: Units of `run_transaction`, by outcome: ``"done"``,
            ``"not_done"``, ``"unknown"``.
        retries: Those of them that took more than one attempt, in the same way.
    """

    __slots__ = ("faults", "retries", "transactions")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.faults = Counts()
        self.transactions = Counts()
        self.retries = Counts()

    def absorb(self, other: Tallies) -> None:
        """Add what another has counted.

        Args:
            other: Another's.
        """
        for kind in type(self).__mro__:
            for name in getattr(kind, "__slots__", ()):
                theirs = getattr(other, name, None)
                if isinstance(theirs, Counts):
                    ours: Counts = getattr(self, name)
                    for word, count in theirs.copy().items():
                        ours.add(word, count)

"""Functions of the application that are told of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Listeners"]

Event = TypeVar("Event")


class Listeners(Generic[Event]):
    """Who listens to one kind of events, in the order of their coming."""

    def __init__(self, name: str) -> None:
        """Begin with nobody.

        Args:
            name: What one listens with, for messages.
        """
        self._name = name
        # No lock: one step on a dict is atomic, and a lock that another thread held at
        # a fork would stay locked in the child for ever. The key makes each
        # subscription its own, even when a function is given twice.
        self._functions: dict[object, Callable[[Event], object]] = {}

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._functions)

    def __iter__(self) -> Iterator[Callable[[Event], object]]:
        """Return those who listen now."""
        return iter(list(self._functions.values()))

    def add(self, function: Callable[[Event], object]) -> Callable[[], None]:
        """Tell a function from now on.

        Args:
            function: Called with each event.

        Returns:
            A function that ends the subscription; calling it again does nothing.

        Raises:
            TypeError: *function* cannot be called.
        """
        if not callable(function):
            msg = f"{self._name} needs a function, not {function!r}"  # type: ignore[unreachable]  # callers without types
            raise TypeError(msg)
        key = object()
        self._functions[key] = function

        def remove() -> None:
            self._functions.pop(key, None)

        return remove

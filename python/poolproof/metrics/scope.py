"""Scopes: what part of an application holds a connection, by a name of its choice.

A name becomes a small number, which the core asks the context for at each checkout,
once the first scope was entered. The names are bounded: whatever comes after the first
200 of a process is ``"other"``.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from poolproof import _log, _native

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["OTHER", "current_scope", "enter", "names", "restore", "scope"]

Function = TypeVar("Function", bound="Callable[..., Any]")

OTHER = "other"
_MOST = 200
_OTHER_NUMBER = _MOST + 1
_LONGEST = 200

_current: ContextVar[int] = ContextVar("poolproof_scope", default=0)
# One step each, and no lock: a fork could copy it while it is held.
_numbers: dict[str, int] = {}
_next = itertools.count(1)
# At the import, not at the first scope: a fork in the middle of it would spoil it.
_native.tell_scopes(_current.get)


class scope:  # noqa: N801 - used like a function
    """Name what is being done, for the connections that it holds.

        with poolproof.scope("checkout-page"):
            session.execute(...)

        @poolproof.scope("nightly-report")
        def report(): ...

    Who holds a connection, how long they are held and what the log says of them carry
    the name. It counts for checkouts of this thread or task inside the block; inside
    another, the inner one counts. The integrations name the endpoints of Flask and
    Starlette, and the tasks of Celery and Luigi, by themselves.

    At most 200 names are told apart in a process; the others are ``"other"``. So a name
    is that of a kind of work, never of one piece of it.

    Attributes:
        name: The name.
    """

    __slots__ = ("_before", "name")

    def __init__(self, name: str) -> None:
        """Choose the name.

        Args:
            name: 1 to 200 characters.

        Raises:
            TypeError: Not a text.
            ValueError: An empty one, or one that is too long.
        """
        if not isinstance(name, str):
            msg = f"a scope needs a name, a text, not {name!r}"  # type: ignore[unreachable]  # callers without types
            raise TypeError(msg)
        if not 1 <= len(name) <= _LONGEST:
            msg = f"a scope needs a name of 1 to {_LONGEST} characters, not {len(name)}"
            raise ValueError(msg)
        self.name = name
        self._before: list[int] = []

    def __enter__(self) -> Self:
        """Begin."""
        self._before.append(enter(self.name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End: what was the scope before is so again."""
        restore(self._before.pop())

    def __call__(self, function: Function) -> Function:
        """Decorate a function, or a coroutine function: each call is in the scope.

        Args:
            function: The function.

        Returns:
            One that does the same.

        Raises:
            TypeError: A generator function, whose body is run by whoever reads it.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(
            function
        ):
            msg = (
                f"{function.__name__} is a generator function, which runs in the scope "
                "of whoever reads it: open the scope inside it"
            )
            raise TypeError(msg)
        name = self.name
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def in_scope_async(*arguments: Any, **more: Any) -> Any:
                with scope(name):
                    return await function(*arguments, **more)

            return in_scope_async  # type: ignore[return-value]  # the same signature

        @functools.wraps(function)
        def in_scope(*arguments: Any, **more: Any) -> Any:
            with scope(name):
                return function(*arguments, **more)

        return in_scope  # type: ignore[return-value]  # the same signature


def enter(name: str) -> int:
    """Begin a scope that is ended by `restore`.

    Args:
        name: Its name.

    Returns:
        What it was before, for `restore`.
    """
    number = _numbers.get(name)
    if number is None:
        number = _number(name)
    before = _current.get()
    _current.set(number)
    return before


def restore(before: int) -> None:
    """End a scope.

    Args:
        before: What `enter` has returned.
    """
    _current.set(before)


def current_scope() -> str | None:
    """Return the name of the scope that the caller is in; None for none."""
    number = _current.get()
    return names().get(number) if number else None


def names() -> dict[int, str]:
    """Return the names of this process by the numbers that the core knows them by."""
    found = {number: name for name, number in list(_numbers.items())}
    found[_OTHER_NUMBER] = OTHER
    return found


def _number(name: str) -> int:
    """Give a name its number; one name too many is the other."""
    _native.use_scopes()
    if len(_numbers) >= _MOST:
        return _OTHER_NUMBER
    number = next(_next)
    # Of two threads that meet here with one name, one has taken a number in vain.
    return _OTHER_NUMBER if number > _MOST else _numbers.setdefault(name, number)


# Log records and the journal stand below, and carry it.
_log.told_by["scope"] = current_scope

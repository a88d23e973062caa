"""Repeating what its caller declares repeatable: functions, coroutines, blocks.

What may be repeated without such a word is decided in `transactions`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from poolproof.faults import table
from poolproof.faults.table import Fault, Verdict
from poolproof.retry.state import Backoff, Course, name_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["attempts", "retry"]

Function = TypeVar("Function", bound="Callable[..., Any]")

_BACKOFF = Backoff()


class _Chosen:
    """What `on=` names: faults and classes of exceptions."""

    __slots__ = ("_classes", "_faults")

    def __init__(self, on: object, *, idempotent: bool) -> None:
        named = list(on) if isinstance(on, Iterable) and not _is_one(on) else [on]
        wrong = [one for one in named if not _is_one(one)]
        if wrong or not named:
            msg = (
                "on names what is repeated: a Fault, a class of exceptions, or several "
                f"of them, not {(wrong or on)!r}"
            )
            raise TypeError(msg)
        self._faults = frozenset(one for one in named if isinstance(one, Fault))
        self._classes = tuple(one for one in named if isinstance(one, type))
        if Fault.INTERRUPTED in named:
            msg = (
                "on cannot be Fault.INTERRUPTED: whoever interrupts wants it to end; "
                "name the other faults"
            )
            raise ValueError(msg)
        broad = [one for one in self._classes if one in (Exception, BaseException)]
        if Fault.NONE in self._faults:  # every error that is none of the others
            broad.append(Exception)
        if broad and not idempotent:
            said = "Fault.NONE" if Fault.NONE in self._faults else broad[0].__name__
            msg = (
                f"on={said} repeats after any error, also where the work "
                "is already done: name faults, or say idempotent=True"
            )
            raise ValueError(msg)

    def __contains__(self, failure: tuple[BaseException, Verdict]) -> bool:
        error, verdict = failure
        if verdict.fault in self._faults:
            return True
        if verdict.fault is Fault.INTERRUPTED or not isinstance(error, Exception):
            return False  # whoever interrupts wants it to end
        return isinstance(error, self._classes) or isinstance(
            getattr(error, "orig", None), self._classes
        )


def _is_one(one: object) -> bool:
    return isinstance(one, Fault) or (
        isinstance(one, type) and issubclass(one, BaseException)
    )


def retry(
    *,
    on: object,
    attempts: int = 4,
    deadline: float | None = None,
    backoff: Callable[[int], float] = _BACKOFF,
    idempotent: bool = False,
) -> Callable[[Function], Function]:
    """Repeat a function, or a coroutine function, that may be repeated as a whole.

        @poolproof.retry(on=(Fault.SERIALIZATION, Fault.CONNECTION_LOST))
        def refresh(): ...

    Whether the work may be done twice is for the caller to know: where a commit was cut
    off it may have been done. `run_transaction` needs no such promise.

    Args:
        on: A `Fault`, a class of exceptions, or several of them. An exception is known
            by its own class or by that of the driver's error inside SQLAlchemy's.
        attempts: How often it is tried, 1 to 1000.
        deadline: Seconds for all attempts together, pauses included; every call to the
            database inside is bounded by it. None for no bound.
        backoff: Chooses the pause after so many failures, in seconds.
        idempotent: Says that repeating does no harm whatever happened; needed for
            ``on=Exception``.

    Returns:
        A decorator. The decorated function raises what its last attempt raised, with
        the failures before as notes.

    Raises:
        TypeError: An argument of the wrong type; a generator function.
        ValueError: A number out of its range, `Fault.INTERRUPTED`, or ``on=Exception``
            or `Fault.NONE` for a unit that is not idempotent.
    """
    chosen = _Chosen(on, idempotent=idempotent)
    Course("a unit", attempts, deadline, backoff)  # refuses bad numbers now

    def decorate(function: Function) -> Function:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(
            function
        ):
            msg = (
                f"retry cannot repeat {name_of(function)}: it is a generator, and its "
                "caller already has what it yielded; use poolproof.attempts inside it"
            )
            raise TypeError(msg)

        @functools.wraps(function)
        def repeated(*args: Any, **kwargs: Any) -> Any:
            for attempt in _Attempts(
                Course(name_of(function), attempts, deadline, backoff), chosen
            ):
                with attempt:
                    return function(*args, **kwargs)
            raise AssertionError  # the last attempt returns or raises

        @functools.wraps(function)
        async def repeated_async(*args: Any, **kwargs: Any) -> Any:
            async for attempt in _Attempts(
                Course(name_of(function), attempts, deadline, backoff), chosen
            ):
                with attempt:
                    return await function(*args, **kwargs)
            raise AssertionError  # the last attempt returns or raises

        called = getattr(function, "__call__", None)  # noqa: B004 - its own, if it has
        is_async = any(map(inspect.iscoroutinefunction, (function, called)))
        wrapper: Any = repeated_async if is_async else repeated
        return wrapper  # type: ignore[no-any-return]

    return decorate


def attempts(
    *,
    on: object,
    attempts: int = 4,
    deadline: float | None = None,
    backoff: Callable[[int], float] = _BACKOFF,
    idempotent: bool = False,
    unit: str = "a block",
) -> _Attempts:
    """Repeat a block of code; the arguments are those of `retry`.

        for attempt in poolproof.attempts(on=Fault.SERIALIZATION):
            with attempt:
                ...

    In a coroutine it is ``async for``.

    Args:
        on: What is repeated.
        attempts: How often the block is tried, 1 to 1000.
        deadline: Seconds for all attempts together.
        backoff: Chooses the pauses.
        idempotent: Says that repeating does no harm whatever happened.
        unit: What it is called in events and notes.

    Returns:
        An iterable of attempts, each a context manager. It ends after the first that
        succeeds; an error that is not repeated leaves the block.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: A number out of its range, `Fault.INTERRUPTED`, or ``on=Exception``
            or `Fault.NONE` for a unit that is not idempotent.
    """
    chosen = _Chosen(on, idempotent=idempotent)
    return _Attempts(Course(unit, attempts, deadline, backoff), chosen)


class _Attempts:
    """Attempts, one after another, until one succeeds or is not to be repeated."""

    def __init__(self, course: Course, chosen: _Chosen) -> None:
        self._course = course
        self._chosen = chosen
        self._pause: float | None = 0.0
        self._is_used = False

    def __iter__(self) -> Iterator[Self]:
        """Yield an attempt, then sleep and yield another for as long as it fails.

        Raises:
            RuntimeError: The attempts were used before, or one of them was left out.
        """
        self._use()
        while self._pause is not None:
            if self._pause:
                time.sleep(self._pause)
            self._is_entered = False
            yield self
            self._look_back()

    async def __aiter__(self) -> AsyncIterator[Self]:
        """Do the same without blocking the loop."""
        self._use()
        while self._pause is not None:
            if self._pause:
                await asyncio.sleep(self._pause)
            self._is_entered = False
            yield self
            self._look_back()

    def _use(self) -> None:
        if self._is_used:
            msg = (
                "these attempts were used before, and would do nothing: call "
                "poolproof.attempts for each loop"
            )
            raise RuntimeError(msg)
        self._is_used = True

    def _look_back(self) -> None:
        if not self._is_entered:
            # The loop would go round for ever.
            msg = "each turn of the loop needs its attempt: with attempt: ..."
            raise RuntimeError(msg)

    @property
    def number(self) -> int:
        """Which attempt it is, 1 is the first."""
        return self._course.attempt

    def __enter__(self) -> Self:
        """Begin an attempt."""
        self._pause = None
        self._is_entered = True
        self._bound = self._course.bounded()
        self._bound.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Swallow the error when there is another attempt."""
        self._bound.__exit__(kind, error, traceback)
        if error is None:
            self._course.succeeded()
            return False
        verdict = table.classify(error)
        self._pause = self._course.failed(
            error, verdict, repeat=(error, verdict) in self._chosen, chosen=True
        )
        return self._pause is not None

    async def __aenter__(self) -> Self:
        """Begin an attempt; nothing is awaited."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Swallow the error when there is another attempt."""
        return self.__exit__(kind, error, traceback)

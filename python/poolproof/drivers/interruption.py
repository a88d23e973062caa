"""Is an error a driver's own, or an interruption of the caller that came through it?

A handler of a signal may raise any class, in the middle of a driver's call: a soft time
limit, say. Only the frames that the error came through tell the two apart.
"""

from __future__ import annotations

import inspect
import signal
from traceback import walk_tb
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_interruption", "is_own", "passed"]

# Where errors are from that drivers pass on beside their own. greenlet's is that a
# socket under gevent was opened in another thread, and cannot be waited for here.
_PASSED_ON = frozenset({"builtins", "greenlet", "select", "socket", "ssl", "struct"})


def is_own(error: Exception, pool: Any) -> bool:
    """Tell an error of a driver from an interruption of the caller.

    A driver raises its own errors, and some let those of the system or of the language
    through, but none that was raised in another's code.

    Args:
        error: What a call of a driver ended with.
        pool: The connection's pool.

    Returns:
        Whether it is the driver's.
    """
    own = getattr(getattr(pool._dialect, "dbapi", None), "Error", ())
    if isinstance(error, own):
        return True
    if not (type(error).__module__ in _PASSED_ON or isinstance(error, OSError)):
        return False
    return not is_interruption(error)


def is_interruption(error: BaseException) -> bool:
    """Tell whether a handler of a signal has raised an error.

    Args:
        error: With the traceback that it was caught with.
    """
    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    codes = {getattr(handler, "__code__", None) for handler in handlers}
    return any(frame.f_code in codes or _is_handler(frame) for frame in passed(error))


def passed(error: BaseException) -> Iterator[FrameType]:
    """Go through the frames that an error has come through, but not who caught it.

    That one knows the error: to look at its variables would make the two keep each
    other, and a driver's socket, until the collector comes.

    Args:
        error: With the traceback that it was caught with.
    """
    traceback = error.__traceback__
    return (frame for frame, _ in walk_tb(traceback and traceback.tb_next))


def _is_handler(frame: FrameType) -> bool:
    """Tell a handler that another one calls: only they are called with a frame."""
    code = frame.f_code
    count = code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS)
    for name in code.co_varnames[: count + code.co_kwonlyargcount]:
        value = frame.f_locals.get(name)
        among = value if isinstance(value, tuple) else (value,)
        if any(isinstance(one, FrameType) for one in among):
            return True
    return False

"""A hint for whoever writes `with` for `async with`, or the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["AsyncBlock", "PlainBlock"]


class PlainBlock:
    """Something of the `with` block."""

    if not TYPE_CHECKING:  # a type checker says it by itself

        def __aenter__(self) -> NoReturn:
            """Refuse; Python looks for `__aexit__` before it calls this."""
            kind = type(self).__name__
            raise TypeError(f"{kind} needs `with`; for `async with` take Async{kind}")

        __aexit__ = __aenter__


class AsyncBlock:
    """Something of the `async with` block."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            """Refuse; Python looks for `__exit__` before it calls this."""
            raise TypeError(f"{type(self).__name__} needs `async with`")

        __exit__ = __enter__

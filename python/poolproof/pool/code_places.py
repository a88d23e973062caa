"""Places in code, remembered without the frames that were there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

__all__ = ["line_of"]


def line_of(code: CodeType, place: int) -> int:
    """Find the line of a place in a code object.

    Args:
        code: A frame's code.
        place: The frame's `f_lasti`.
    """
    for start, end, line in code.co_lines():
        if start <= place < end and line is not None:
            return line
    return code.co_firstlineno

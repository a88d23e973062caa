"""After how many times a statement is prepared."""

from __future__ import annotations

from poolproof.driver.errors import ProgrammingError

__all__ = ["THRESHOLD", "refuse_threshold"]

# As psycopg has it, and the bridge.
THRESHOLD = 5
_MOST_THRESHOLD = 2**31 - 1


def refuse_threshold(value: object) -> None:
    """Refuse what is no `prepare_threshold`.

    Args:
        value: What was given.

    Raises:
        ProgrammingError: It is none.
    """
    if value is None:
        return
    is_truth = isinstance(value, bool)
    if isinstance(value, int) and not is_truth and 0 <= value <= _MOST_THRESHOLD:
        return
    raise ProgrammingError(
        "prepare_threshold is after how many times a statement is prepared, a "
        f"whole number from 0 on, or None for never, not {value!r}"
    )

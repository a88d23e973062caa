"""The rows of the fault table, by name, for tests that provoke each of them.

`row` finds a row by fragments of how the documents say that it is recognised;
`test_rows.py` looks for its calls, and shows that no row is left out. `decided_by` says
which row an error is judged by.
"""

from __future__ import annotations

from typing import NamedTuple

from poolproof import Fault, _native
from poolproof.faults import table
from poolproof.faults.error_info import Phase, ReadOnly, read, unwrap


class Row(NamedTuple):
    """One row: its place, what it means, and how it is recognised."""

    place: int
    fault: Fault
    words: str


ROWS = tuple(
    Row(place, Fault(fault), " and ".join(tests))
    for place, (fault, tests, _cause) in enumerate(_native.fault_rows())
)


def row(*fragments: str) -> Row:
    """Return the one row whose words have all the fragments, or are the only one.

    Raises:
        LookupError: None has, or several have.
    """
    found = [one for one in ROWS if fragments == (one.words,)] or [
        one for one in ROWS if all(part in one.words for part in fragments)
    ]
    if len(found) != 1:
        message = f"{fragments} fit {[one.words for one in found] or 'no row'}"
        raise LookupError(message)
    return found[0]


def decided_by(
    error: BaseException | None,
    *,
    driver: str = "",
    phase: Phase = "unknown",
    read_only: ReadOnly = "unknown",
    busy: bool = False,
) -> Row | None:
    """Return the row that an error is judged by, if there is one."""
    assert error is not None
    signal = read(unwrap(error), driver)
    place = table.look_up(signal, phase=phase, read_only=read_only, busy=busy).row
    return None if place is None else ROWS[place]

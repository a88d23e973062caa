"""Messages of PostgreSQL's protocol (version 3) that no server sent."""

from __future__ import annotations

import struct
from typing import Final

_TEXT_OID: Final = 25


def _message(kind: bytes, body: bytes) -> bytes:
    """Frame one message."""
    return kind + struct.pack("!i", len(body) + 4) + body


def _row_description() -> bytes:
    """Describe one column of text named ``stray``."""
    column = b"stray\0" + struct.pack("!ihihih", 0, 0, _TEXT_OID, -1, -1, 0)
    return _message(b"T", struct.pack("!h", 1) + column)


def _data_row(value: bytes) -> bytes:
    """Carry one row of one column."""
    return _message(b"D", struct.pack("!hi", 1, len(value)) + value)


ROW: Final = _data_row(b"an answer to nobody's question")
"""A lone row."""

_READY: Final = _message(b"Z", b"I")

ANSWER: Final = _row_description() + ROW + _message(b"C", b"SELECT 1\0") + _READY
"""A whole answer to a query: one row of one text."""

DONE: Final = _message(b"C", b"UPDATE 0\0") + _READY
"""A whole answer without rows, as to a statement that changes something."""

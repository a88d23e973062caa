"""The names of transactions in two phases."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, NamedTuple

from poolproof.driver.errors import ProgrammingError

if TYPE_CHECKING:
    import datetime as dt

__all__ = ["Xid"]

_LONGEST = 64
_FORM = re.compile(r"(\d+)_([^_]*)_([^_]*)")


class Xid(NamedTuple):
    """The name of a transaction in two phases.

    Attributes:
        format_id: 0 to 2147483647; None for a name that is not in PEP 249's three
            parts.
        gtrid: The name of the global transaction.
        bqual: The name of this branch of it; None with `format_id` None.
        prepared: When it was prepared; None where it was not asked from the server.
        owner: Who has prepared it; likewise.
        database: Where; likewise.
    """

    format_id: int | None
    gtrid: str
    bqual: str | None
    prepared: dt.datetime | None = None
    owner: str | None = None
    database: str | None = None

    @classmethod
    def of_parts(cls, format_id: int, gtrid: str, bqual: str) -> Xid:
        """Make a name of PEP 249's three parts.

        Args:
            format_id: 0 to 2147483647.
            gtrid: At most 64 printable ASCII characters.
            bqual: The same.

        Raises:
            ProgrammingError: A part cannot be.
        """
        number: object = format_id
        if not isinstance(number, int) or not 0 <= number < 1 << 31:
            raise ProgrammingError(
                f"format_id is a number from 0 to 2147483647, not {format_id!r}"
            )
        for name, part in (("gtrid", gtrid), ("bqual", bqual)):
            fits = len(part) <= _LONGEST and part.isascii() and part.isprintable()
            if not (fits or not part):
                raise ProgrammingError(
                    f"{name} is at most {_LONGEST} printable ASCII characters, not "
                    f"{part!r}"
                )
        return cls(format_id, gtrid, bqual)

    @classmethod
    def of_text(cls, text: str) -> Xid:
        """Read a name as the server keeps it.

        Args:
            text: `gid` of ``pg_prepared_xacts``, or a name of one's own.
        """
        if found := _FORM.fullmatch(text):
            number, gtrid, bqual = found.groups()
            try:
                parts = (
                    base64.b64decode(gtrid, validate=True).decode(),
                    base64.b64decode(bqual, validate=True).decode(),
                )
            except (binascii.Error, UnicodeDecodeError):
                pass
            else:
                return cls(int(number), *parts)
        return cls(None, text, None)

    def __str__(self) -> str:
        """The name as the server keeps it, which is psycopg2's and psycopg's form."""
        if self.format_id is None:
            return self.gtrid
        parts = (
            base64.b64encode(part.encode()).decode()
            for part in (self.gtrid, self.bqual or "")
        )
        return "_".join((str(self.format_id), *parts))

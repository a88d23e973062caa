"""COPY of many rows by each driver, in and out, as values and as the server's text."""

from __future__ import annotations

import datetime as dt
import decimal
import io
from functools import partial
from typing import TYPE_CHECKING, Any

from _rounds import clock

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable


__all__ = ["TABLE", "copied", "copied_by_asyncpg", "values"]

COLUMNS = ["n", "t", "d", "s", "b"]
TYPES = ["int4", "text", "numeric", "timestamptz", "bool"]
TABLE = "n int, t text, d numeric, s timestamptz, b bool"
IN = "copy copied from stdin"
OUT = "copy copied to stdout"
PIECE = 65_536


def values(count: int) -> list[tuple[Any, ...]]:
    """Make so many rows of five columns."""
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678, dt.timezone.utc)
    return [
        (n, f"text number {n}", decimal.Decimal(n) / 4, moment, n % 2 == 0)
        for n in range(count)
    ]


def lines(count: int) -> bytes:
    """Make the same rows in the text format."""
    return b"".join(
        f"{n}\ttext number {n}\t{n / 4}\t2026-01-02 03:04:05.000678+00\t"
        f"{'t' if n % 2 == 0 else 'f'}\n".encode()
        for n in range(count)
    )


class Sink:
    """A file that counts what is written to it."""

    def __init__(self) -> None:
        """Have nothing."""
        self.count = 0

    def write(self, data: bytes) -> None:
        """Count it."""
        self.count += len(data)


def copied(name: str, connection: Any, count: int) -> dict[str, Callable[[], float]]:
    """Make what measures a driver's COPY: µs for all rows, in one transaction.

    Args:
        name: The driver's.
        connection: One of its connections, in a transaction of its own.
        count: How many rows.
    """
    cursor = connection.cursor()
    cursor.execute(f"create temp table copied ({TABLE})")
    text, rows = lines(count), values(count)
    verbs = {
        "file-in": partial(_file_in, cursor, text),
        "file-out": partial(_file_out, cursor, len(text)),
    }
    if name != "psycopg2":  # it has no COPY of values
        verbs["rows-in"] = partial(_rows_in, name, cursor, rows)
        verbs["rows-out"] = partial(_rows_out, cursor, count)

    def measure(kind: str, verb: Callable[[], None]) -> float:
        cursor.execute("truncate copied")
        if kind.endswith("out"):
            _file_in(cursor, text)
        begun = clock()
        verb()
        taken = (clock() - begun) * 1e6
        connection.rollback()
        return taken

    connection.commit()
    return {
        f"{kind} {name}": partial(measure, kind, verb) for kind, verb in verbs.items()
    }


def _file_in(cursor: Any, text: bytes) -> None:
    if hasattr(cursor, "copy_expert"):
        cursor.copy_expert(IN, io.BytesIO(text))
        return
    with cursor.copy(IN) as copy:
        for at in range(0, len(text), PIECE):
            copy.write(text[at : at + PIECE])


def _file_out(cursor: Any, length: int) -> None:
    sink = Sink()
    if hasattr(cursor, "copy_expert"):
        cursor.copy_expert(OUT, sink)
    else:
        with cursor.copy(OUT) as copy:
            for data in copy:
                sink.write(data)
    assert sink.count >= length // 2


def _rows_in(name: str, cursor: Any, rows: list[tuple[Any, ...]]) -> None:
    with cursor.copy(IN) as copy:
        if name == "poolproof":
            copy.write_rows(rows)
        else:
            for row in rows:
                copy.write_row(row)


def _rows_out(cursor: Any, count: int) -> None:
    with cursor.copy(OUT) as copy:
        copy.set_types(TYPES)
        assert sum(1 for _ in copy.rows()) == count


def copied_by_asyncpg(
    loop: asyncio.AbstractEventLoop, connection: Any, count: int
) -> dict[str, Callable[[], float]]:
    """Make what measures asyncpg's COPY, which gives no values back.

    Args:
        loop: The connection's.
        connection: One of asyncpg's connections.
        count: How many rows.
    """
    text, rows = lines(count), values(count)
    loop.run_until_complete(connection.execute(f"create temp table copied ({TABLE})"))

    async def file_in() -> None:
        await connection.copy_to_table("copied", source=io.BytesIO(text))

    async def file_out() -> None:
        sink = Sink()

        async def write(data: bytes) -> None:
            sink.write(data)

        await connection.copy_from_table("copied", output=write)
        assert sink.count >= len(text) // 2

    async def rows_in() -> None:
        await connection.copy_records_to_table("copied", records=rows, columns=COLUMNS)

    async def measure(kind: str, verb: Callable[[], Awaitable[None]]) -> float:
        await connection.execute("truncate copied")
        if kind.endswith("out"):
            await file_in()
        async with connection.transaction():
            begun = clock()
            await verb()
            return (clock() - begun) * 1e6

    verbs = {"file-in": file_in, "file-out": file_out, "rows-in": rows_in}
    return {
        f"{kind} asyncpg": partial(_run, loop, measure, kind, verb)
        for kind, verb in verbs.items()
    }


def _run(loop: asyncio.AbstractEventLoop, measure: Any, *args: Any) -> float:
    return float(loop.run_until_complete(measure(*args)))

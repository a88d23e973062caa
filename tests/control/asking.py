"""Asks libpq, psql and those of ours for the same connection, one by one."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import exc

from plugins.lying import STATEMENT_REFUSED, LyingServer
from poolproof import ControlError, _native
from poolproof.drivers.conninfo import conninfo
from poolproof.leases.table import LeaseTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from plugins.lying import Met

NO_TABLE = "42P01"
# What psql of PostgreSQL 15 does not know.
_NEWER = {"require_auth", "sslcertmode", "sslnegotiation", "load_balance_hosts"}
_NEWER |= {"min_protocol_version", "max_protocol_version", "gssdelegation"}


@dataclass(frozen=True)
class Asked:
    """What came of one request: in or not, why not, what was sent."""

    is_in: bool
    why: str
    sent: frozenset[tuple[str, bool]] = frozenset()


# What the lying server says to a statement: who reads it was let in.
REFUSED = "no statement is carried out here"


def as_text(parameters: Mapping[str, object]) -> str:
    """Write parameters as libpq's pairs."""
    quoted = {
        name: re.sub(r"(['\\])", r"\\\1", str(value))
        for name, value in parameters.items()
    }
    return " ".join(f"{name}='{value}'" for name, value in quoted.items())


def ask_libpq(text: str) -> tuple[bool, str]:
    """Ask the libpq of psycopg, the newest there is."""
    # Not `connect`, which keeps the interpreter lock: the server is a thread.
    start = psycopg.pq.PGconn.connect_start
    connection = start(text.encode("utf-8", "surrogateescape"))
    while connection.status != psycopg.pq.ConnStatus.BAD:
        match connection.connect_poll():
            case psycopg.pq.PollingStatus.READING:
                ready = select.select([connection.socket], [], [], 10)
            case psycopg.pq.PollingStatus.WRITING:
                ready = select.select([], [connection.socket], [], 10)
            case _:
                break
        assert any(ready), "libpq waits for ever"
    is_in = connection.status == psycopg.pq.ConnStatus.OK
    why = connection.error_message.decode(errors="replace")
    if is_in:
        connection.send_query(b"select 1")
    connection.finish()
    return is_in, why


def ask_psql(text: str) -> tuple[bool, str]:
    """Ask Debian's psql; it was not in where it says that the server ended it."""
    done = subprocess.run(
        [_psql(), "-X", "-w", "-c", "select 1", text],
        capture_output=True,
        timeout=200,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )
    return done.returncode != 2, done.stderr.decode(errors="replace")


def _psql() -> Path:
    return max(Path("/usr/lib/postgresql").glob("*/bin/psql"))


def psql_knows(parameters: Mapping[str, object]) -> bool:
    """Tell whether psql of PostgreSQL 15 knows all that is asked for."""
    is_new = "system" in (parameters.get("sslrootcert"), os.getenv("PGSSLROOTCERT"))
    by_variable = {"PGREQUIREAUTH", "PGSSLCERTMODE", "PGSSLNEGOTIATION"} & set(
        os.environ
    )
    return not (is_new or by_variable or _NEWER & parameters.keys())


def ask_control_plane(text: str) -> tuple[bool, str]:
    """Ask the control plane: it is in when its statement was refused."""
    try:
        LeaseTable(text, "no_such_table").entries()
    except ControlError as error:
        return error.sqlstate in {NO_TABLE, STATEMENT_REFUSED}, str(error)
    except exc.ArgumentError as error:
        return False, str(error)
    return True, ""


def ask_driver(text: str) -> tuple[bool, str]:
    """Ask the native driver; it may have something to set before it is connected."""
    try:
        wire = _native.Wire.connect(conninfo(text), timeout_s=20)
    except _native.WireError as error:
        return error.sqlstate == STATEMENT_REFUSED, str(error)
    except exc.ArgumentError as error:
        return False, str(error)
    wire.close()
    return True, ""


def disagreements(
    server: LyingServer, cells: Iterable[Mapping[str, object]]
) -> tuple[int, list[str]]:
    """Ask all four of each cell; return how many there were, and who differs."""
    wrong = []
    count = 0
    for cell in cells:
        count += 1
        whole = {"user": "u", "dbname": "d", "port": server.port, **cell}
        text = as_text(whole)
        answers = {}
        for name, ask in (
            ("libpq", ask_libpq),
            ("psql", ask_psql),
            ("control plane", ask_control_plane),
            ("driver", ask_driver),
        ):
            if name == "psql" and not psql_knows(whole):
                continue
            is_in, why = ask(text)
            met = server.take()
            if name == "psql":  # which says one thing for much
                is_in = any(each.entered for each in met) or REFUSED in why
            answers[name] = Asked(is_in, why.strip(), _sent(met))
        ours = {name: answers.pop(name) for name in ("control plane", "driver")}
        for own, our in ours.items():
            for name, theirs in answers.items():
                if our.is_in != theirs.is_in or our.sent - theirs.sent:
                    wrong.append(f"{dict(cell)}:\n  {name}: {theirs}\n  {own}: {our}")
    return count, wrong


def _sent(met: list[Met]) -> frozenset[tuple[str, bool]]:
    return frozenset(each for one in met for each in one.sent)


@contextlib.contextmanager
def variables(**values: object) -> Iterator[None]:
    """Set environment variables for a while; they are seen by C too."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, str(value))
        yield

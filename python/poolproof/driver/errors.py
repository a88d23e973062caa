"""PEP 249's exceptions, and how a server's error becomes one of them.

Warning:
Error
├─ InterfaceError         the driver was used in a way that cannot be
└─ DatabaseError
├─ DataError          22xxx
├─ OperationalError   the server, the network, a limit
├─ IntegrityError     23xxx
├─ InternalError      a state that the transaction or the session must not have
├─ ProgrammingError   the statement is wrong
└─ NotSupportedError  the driver or the server cannot do it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolproof import _native

__all__ = [
    "DataError",
    "DatabaseError",
    "Diagnostics",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "Outcome",
    "PipelineAborted",
    "ProgrammingError",
    "Warning",
    "from_wire",
    "of_server",
]

Outcome: TypeAlias = Literal["not_done", "done", "unknown"]

# The fields of an ErrorResponse, by the names that psycopg gives them.
_FIELDS = {
    "severity": "S",
    "severity_nonlocalized": "V",
    "sqlstate": "C",
    "message_primary": "M",
    "message_detail": "D",
    "message_hint": "H",
    "statement_position": "P",
    "internal_position": "p",
    "internal_query": "q",
    "context": "W",
    "schema_name": "s",
    "table_name": "t",
    "column_name": "c",
    "datatype_name": "d",
    "constraint_name": "n",
    "source_file": "F",
    "source_line": "L",
    "source_function": "R",
}


class Diagnostics:
    """What the server says of an error or a notice; None for what it leaves out.

    Attributes:
        severity: How bad it is, in the server's language.
        severity_nonlocalized: The same in English.
        sqlstate: Five characters.
        message_primary: The message.
        message_detail: More of it.
        message_hint: What to do about it.
        statement_position: Where in the statement, in characters from 1, as a text.
        internal_position: Where in `internal_query`.
        internal_query: A statement that a function ran.
        context: The functions that it happened in.
        schema_name: The schema that it is about.
        table_name: The table.
        column_name: The column.
        datatype_name: The type.
        constraint_name: The constraint.
        source_file: The file of the server's source.
        source_line: The line there.
        source_function: The function there.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str] | None = None) -> None:
        """Keep the fields.

        Args:
            fields: Each by its one-letter code of the protocol.
        """
        self._fields = dict(fields or {})

    def __getattr__(self, name: str) -> str | None:
        code = _FIELDS.get(name)
        if code is None:
            raise AttributeError(name)
        return self._fields.get(code)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_FIELDS]

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._fields,)


class Warning(Exception):  # noqa: A001, N818 - PEP 249's name
    """An important warning; this driver raises none."""

    __module__ = "poolproof.driver"


class Error(Exception):
    """Whatever goes wrong.

    Attributes:
        sqlstate: Five characters; None where the server has no part in it.
        diag: What the server says.
        outcome: What became of the transaction: ``"not_done"``, ``"done"``, or
            ``"unknown"``, by what was sent and what was answered; None where the
            error decides nothing.
        is_busy: Whether another request was under way on the connection, so that this
            one was refused, and nothing of it was sent.
    """

    __module__ = "poolproof.driver"

    is_busy = False

    def __init__(
        self,
        *args: object,
        fields: Mapping[str, str] | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        """Make the error.

        Args:
            args: The message.
            fields: The server's, each by its one-letter code.
            outcome: See the attribute.
        """
        super().__init__(*args)
        self.diag = Diagnostics(fields)
        self.outcome: Outcome | None = outcome

    @property
    def sqlstate(self) -> str | None:
        """The SQLSTATE, or None."""
        return self.diag.sqlstate

    @property
    def pgcode(self) -> str | None:
        """The SQLSTATE by psycopg2's name."""
        return self.diag.sqlstate


class InterfaceError(Error):
    """The driver was used in a way that cannot be, such as after its close."""

    __module__ = "poolproof.driver"


class DatabaseError(Error):
    """The database has a part in it."""

    __module__ = "poolproof.driver"


class DataError(DatabaseError):
    """A value cannot be: out of range, not of its type, not to be sent."""

    __module__ = "poolproof.driver"


class OperationalError(DatabaseError):
    """Not the program's fault: the network, the server, a limit, a lock."""

    __module__ = "poolproof.driver"


class PipelineAborted(OperationalError):  # noqa: N818 - as psycopg has it
    """A statement of a pipeline was not run, because one before it has failed."""

    __module__ = "poolproof.driver"


class IntegrityError(DatabaseError):
    """A constraint forbids it."""

    __module__ = "poolproof.driver"


class InternalError(DatabaseError):
    """The transaction or the session is in a state that does not allow it."""

    __module__ = "poolproof.driver"


class ProgrammingError(DatabaseError):
    """The statement or its parameters are wrong."""

    __module__ = "poolproof.driver"


class NotSupportedError(DatabaseError):
    """The driver or the server cannot do it; the message says what can be done."""

    __module__ = "poolproof.driver"


# As psycopg has it, so that `except` clauses mean the same.
_CLASSES: dict[str, type[DatabaseError]] = {
    "0A": NotSupportedError,
    **dict.fromkeys(
        ("10", "20", "21", "26", "34", "3D", "3F", "42", "44"), ProgrammingError
    ),
    "22": DataError,
    "23": IntegrityError,
    **dict.fromkeys(("24", "25", "2B", "2D"), InternalError),
    **dict.fromkeys(("08", "27", "28", "2F", "38", "39", "3B", "40"), OperationalError),
    **dict.fromkeys(("53", "54", "55", "57", "58"), OperationalError),
}
_FAMILIES: dict[str, type[DatabaseError]] = {
    "F": OperationalError,
    "H": OperationalError,
    "P": ProgrammingError,
    "X": InternalError,
}


def of_server(
    fields: Mapping[str, str], outcome: Outcome | None = None
) -> DatabaseError:
    """Make the exception that a server's error is.

    Args:
        fields: Those of the ErrorResponse, each by its one-letter code.
        outcome: What became of the transaction, if the error decides it.
    """
    state = fields.get("C", "")
    kind = _CLASSES.get(state[:2]) or _FAMILIES.get(state[:1], DatabaseError)
    lines = [fields.get("M", "the server reported an error without a message")]
    for name, code in (("DETAIL", "D"), ("HINT", "H"), ("CONTEXT", "W")):
        if text := fields.get(code):
            lines.append(f"{name}:  {text}")
    return kind("\n".join(lines), fields=fields, outcome=outcome)


# What the bridge calls the others.
_KINDS: dict[str, type[Error]] = {
    "closed": OperationalError,
    "connect": OperationalError,
    "timeout": OperationalError,
    "out_of_step": OperationalError,
    "forked": InterfaceError,
    "busy": InterfaceError,
    "data": DataError,
    "usage": ProgrammingError,
    "unsupported": NotSupportedError,
    "rolled_back": InternalError,
}


def from_wire(error: _native.WireError, *, connecting: bool = False) -> Error:
    """Make PEP 249's exception of what the bridge raises.

    Args:
        error: The bridge's.
        connecting: Whether there is no connection yet: whatever the server says then is
            an `OperationalError`, as with psycopg2 and psycopg.
    """
    outcome = cast("Outcome", error.outcome.replace(" ", "_"))
    if error.kind == "server":
        found = of_server(error.fields, outcome)
        if connecting:
            return OperationalError(*found.args, fields=error.fields, outcome=outcome)
        return found
    kind = _KINDS.get(error.kind, OperationalError)
    made = kind(error.message, fields=error.fields, outcome=outcome)
    made.is_busy = error.kind == "busy"
    return made

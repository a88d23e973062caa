"""Why there is no connection, in one line, and what to try."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from poolproof.doctor.engines import is_misread, shown

if TYPE_CHECKING:
    from poolproof.doctor.subject import Subject

__all__ = ["explained", "one_line"]

_MOST: Final = 300
# What a driver says, by SQLSTATE or by its words, and what to try.
_HINTS: Final = (
    (r"28P01|password authentication failed|no password supplied|SASL",
     "check user and password; .pgpass and PGPASSWORD are read, too"),
    (r"28000|pg_hba|no such user|role .* does not exist",
     "check the user, and pg_hba.conf on the server"),
    (r"3D000|database .* does not exist|no such database",
     "check the database's name"),
    (r"53300|too many|no more connections|remaining connection slots",
     "no slot is free: end some sessions, or ask as a role with a reserved slot"),
    (r"Connection refused|connection refused|ECONNREFUSED|Errno 111",
     "check host and port, and that the server listens there"),
    (r"translate host|Name or service|nodename|getaddrinfo|resolve",
     "check the host's name"),
    (r"timeout|timed out|not answered|no answer",
     "check host and port, and whether a firewall drops what is sent there"),
    (r"certificate|SSL|TLS", "check sslmode and sslrootcert"),
    (r"No such file or directory|socket", "check host, port, or the socket's folder"),
)  # fmt: skip
_OTHERWISE: Final = "try the same with psql"


def explained(subject: Subject, error: BaseException) -> str:
    """Say in one line why something failed, and what to try, without a secret.

    Args:
        subject: Of whose server it is.
        error: What was raised.
    """
    words = f"{_state(error)} {error}"
    # Whose driver quotes the host quotes a piece of the password then.
    said = "" if is_misread(subject.engine) else one_line(subject.redact(str(error)))
    hint = next(
        (hint for pattern, hint in _HINTS if re.search(pattern, words)), _OTHERWISE
    )
    where = one_line(subject.redact(shown(subject.engine)))
    return f"{where}: {said or type(error).__name__}; {hint}"


def one_line(text: str) -> str:
    """Write a text in one line of a bearable length.

    Args:
        text: Whatever somebody has said.
    """
    words = " ".join(text.partition("\n(Background on this error")[0].split())
    plain = "".join(one if one.isprintable() else repr(one)[1:-1] for one in words)
    return plain if len(plain) <= _MOST else f"{plain[: _MOST - 1]}…"


def _state(error: BaseException) -> str:
    for name in ("sqlstate", "pgcode"):
        if isinstance(state := getattr(error, name, None), str):
            return state
    first = error.args[0] if error.args else None
    return str(first.get("C", "")) if isinstance(first, dict) else ""

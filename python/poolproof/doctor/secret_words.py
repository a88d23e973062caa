"""No word of a secret in what the doctor says."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

from poolproof.drivers.conninfo import KEYWORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import URL

__all__ = ["of_url", "redact", "values"]

_SECRET: Final = ("password", "sslpassword", "passfile")
_HIDDEN: Final = "***"
# What no driver takes for a secret, and what stands on many lines.
_OURS: Final = ("plugin", "application_name")


def of_url(url: URL, *, unknown: bool = True) -> list[str]:
    """Return what of a URL must not be shown.

    Args:
        url: The URL.
        unknown: Whether the value of a parameter that libpq does not know counts,
            which may be what follows a ? in a password.
    """
    secrets = [str(url.password or "")]
    for name, given in url.query.items():
        is_known = name in (*KEYWORDS, *_OURS) or name.startswith("poolproof")
        if name in _SECRET or (unknown and not is_known):
            secrets += values(given)
    return [secret for secret in secrets if secret]


def values(value: str | tuple[str, ...] | None) -> list[str]:
    """Return the values of a parameter of a URL, none when it is absent.

    Args:
        value: As SQLAlchemy has it.
    """
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def of_environment() -> list[str]:
    """Return what of the environment must not be shown."""
    found = (os.environ.get(name, "") for name in ("PGPASSWORD", "PGPASSFILE"))
    return [secret for secret in found if secret]


def redact(text: str, secrets: Iterable[Any]) -> str:
    """Blot out every spelling of a secret.

    Args:
        text: What is to be shown.
        secrets: What must not be.
    """
    spellings = {
        spelling
        for secret in map(str, secrets)
        if secret
        for spelling in (secret, repr(secret)[1:-1], *_quoted(secret))
    }
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, _HIDDEN)
    return text


def _quoted(secret: str) -> Iterator[str]:
    """Yield how a secret stands in a URL, with bytes that are no text too."""
    for errors in ("surrogateescape", "surrogatepass"):
        with contextlib.suppress(UnicodeEncodeError):  # the error would hold it
            yield quote(secret, safe="", errors=errors)
            yield quote_plus(secret, errors=errors)

"""Lengths of time: the server's units, and words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poolproof.doctor.server_facts import ServerFacts

__all__ = ["seconds", "seconds_of"]

_MINUTE, _HOUR = 60, 3600


def seconds_of(server: ServerFacts, setting: str) -> float:
    """Return one of the server's time-outs, which count milliseconds.

    Args:
        server: What the server says.
        setting: The setting's name.

    Returns:
        Seconds; 0 where it is off, or does not exist.
    """
    return max(0, server.number(setting) or 0) / 1000


def seconds(length: float) -> str:
    """Write a length of time as people read it.

    Args:
        length: In seconds.
    """
    if length < 1:
        return f"{length * 1000:.3g} ms"
    if length < 2 * _MINUTE:
        return f"{length:.3g} s"
    if length < 2 * _HOUR:
        return f"{length / _MINUTE:.3g} min"
    return f"{length / _HOUR:.3g} h"

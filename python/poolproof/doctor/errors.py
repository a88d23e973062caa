"""What keeps the doctor from looking at all: one line each."""

from __future__ import annotations

__all__ = ["DoctorError", "NoConnectionError"]


class DoctorError(Exception):
    """Nothing can be looked at; the message says why, and what to try."""


class NoConnectionError(DoctorError):
    """The server lets nobody in, or does not answer."""

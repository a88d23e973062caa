"""The pool entry: SQLAlchemy's record, with the ticket to its slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolproof._sqlalchemy import ConnectionRecord

if TYPE_CHECKING:
    import weakref

    from poolproof._native import Ticket
    from poolproof._sqlalchemy import ConnectionFairy

__all__ = ["Entry"]


class Entry(ConnectionRecord):
    """A place in the pool that a connection is in, or was, or will be.

    The ticket belongs to the entry: while the entry is lent, nothing else refers to
    either, so whatever interrupts the caller drops both, and the slot is free again.

    Attributes:
        ticket: The right to the slot, renewed at each checkout.
        lent_to: The fairy of the last checkout, remembered for when it is detached.
    """

    __slots__ = ("lent_to", "ticket")

    ticket: Ticket
    lent_to: weakref.ref[ConnectionFairy] | None

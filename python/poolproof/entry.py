"""The pool entry: SQLAlchemy's record, with the ticket to its slot."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from poolproof._sqlalchemy import ConnectionRecord

if TYPE_CHECKING:
    import weakref

    from poolproof._native import Registration, Ticket
    from poolproof._sqlalchemy import ConnectionFairy
    from poolproof.pool import Pool

__all__ = ["Entry"]


class Entry(ConnectionRecord):
    """A place in the pool that a connection is in, or was, or will be.

    The ticket belongs to the entry: while the entry is lent, nothing else refers to
    either, so whatever interrupts the caller drops both, and the slot is free again.

    Attributes:
        ticket: The right to the slot, renewed at each checkout.
        owner: The pool.
        socket: The registration of the connection's socket, if it has one.
        lent_to: The fairy of the last checkout, remembered for when it is detached.
    """

    __slots__ = ("lent_to", "owner", "socket", "ticket")

    ticket: Ticket
    lent_to: weakref.ref[ConnectionFairy] | None
    socket: Registration | None

    def __init__(self, owner: Pool) -> None:
        """Open a connection for a slot of `owner`."""
        self.owner = owner
        self.lent_to = None
        self.socket = None
        # What a fork during the connecting needs to make this quiet in the child.
        self.fairy_ref = None
        self.dbapi_connection = None
        self.finalize_callback = deque()
        owner.remember(self)
        super().__init__(owner)

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """Go back to the pool, whatever the listeners do.

        An error of a `checkin` listener ends SQLAlchemy's check-in half-way; whoever
        keeps that error keeps this entry alive, and with it the slot.
        """
        try:
            ConnectionRecord.checkin(self, _fairy_was_created)  # sooner than super()
        except BaseException:
            self.owner.give_up(self)
            raise

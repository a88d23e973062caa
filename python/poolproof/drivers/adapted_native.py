"""poolproof's own driver, in a loop: the engine has its very connection."""

from __future__ import annotations

from typing import Any

from poolproof.drivers.adapted import Adapted
from poolproof.drivers.native import Native

__all__ = ["AdaptedNative"]

_MAY_BE_WAITED_FOR = ("A", "X")  # in a request; closed


class AdaptedNative(Adapted, Native):
    """poolproof's own driver, in a loop.

    A task that was cancelled while it waited has cost the connection already, and the
    server is told beside: nothing is left to be done in the loop.
    """

    __slots__ = ()

    def wire(self, connection: Any) -> None:
        """Return None: there is no answer to come, and the socket says all.

        Args:
            connection: The engine's connection.
        """
        del connection

    def is_waited_for(self, connection: Any) -> bool:
        """Tell whether a task waits for an answer; closing shuts the socket then.

        Args:
            connection: The engine's connection.

        Returns:
            Whether one does, or may not have heard yet that it was closed.
        """
        return connection.wire.status in _MAY_BE_WAITED_FOR

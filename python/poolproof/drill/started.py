"""What is started and stopped: a context manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Started:
    """Runs between its start and its stop."""

    def start(self) -> Self:
        """Start it."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it; does nothing a second time."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

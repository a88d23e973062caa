"""Steps of a nox session that all run, whatever becomes of those before.

nox goes on with the next session when one has failed; inside of a session it does not:
a failed test would keep those that measure time from running, and nothing would say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nox.command import CommandFailed

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self  # Python 3.11; for the type checker alone

    import nox


class Steps:
    """The steps of a session: each runs, and the end fails if one did.

    Args:
        session: The session whose steps they are.

    Example:
        >>> with Steps(session) as steps:  # doctest: +SKIP
        ...     steps.run("ruff", "check")
        ...     steps.run("ruff", "format", "--check")
    """

    def __init__(self, session: nox.Session) -> None:
        self._session = session
        self._failed: list[str] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._failed:
            self._session.error(
                f"{len(self._failed)} of {self._count} steps failed: "
                + "; ".join(self._failed)
            )

    def run(self, *command: str, **options: Any) -> None:
        """Run a command as `nox.Session.run` does, and note when it fails."""
        self._count += 1
        try:
            self._session.run(*command, **options)
        except CommandFailed:
            self._failed.append(" ".join(command))

"""Pipelines of one's own: statements sent together, and answered one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poolproof import _native
from poolproof.driver.cursor import Cursor
from poolproof.driver.errors import (
    Error,
    OperationalError,
    PipelineAborted,
    from_wire,
)
from poolproof.driver.placeholders import arranged, parsed, text_of, whole

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from poolproof.driver.description import Described
    from poolproof.driver.placeholders import Parameters
    from poolproof.driver.session import WireSession

__all__ = ["Pipeline", "PipelineCursor"]

# So many are sent without being asked for: they are in memory, and so are the answers.
MOST = 1_000


class _Waiting:
    """One statement, until its answer is there.

    Attributes:
        asked: The statement in the server's form, and its parameters.
        answer: What the server has answered.
        error: What there is instead.
    """

    __slots__ = ("answer", "asked", "error")

    def __init__(self, asked: tuple[_native.Statement | str, Any]) -> None:
        self.asked = asked
        self.answer: _native.Answer | None = None
        self.error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether it is known what has become of it."""
        return self.answer is not None or self.error is not None


class Pipeline:
    """What `Connection.pipeline` gives: statements that wait, and are sent together.

    As a context manager it ends with `sync`. After an exception in its block nothing
    more is sent.
    """

    def __init__(self, connection: WireSession) -> None:
        """Begin with nothing; `Connection.pipeline` makes one.

        Args:
            connection: Whose statements.
        """
        self._connection = connection
        self._waiting: list[_Waiting] = []
        self._depth = 0
        # What has failed since the last `sync`, and whether somebody was told.
        self._failed: BaseException | None = None
        self._is_told = False

    @property
    def is_waiting(self) -> bool:
        """Whether statements wait to be sent."""
        return bool(self._waiting)

    def sync(self) -> None:
        """Send what waits, take the answers, and begin anew.

        Raises:
            Error: The first error since the last time, unless the cursor that it is of
                has raised it.
        """
        self.send()
        failed, self._failed = self._failed, None
        is_told, self._is_told = self._is_told, False
        if failed is not None and not is_told:
            raise failed

    def add(self, asked: tuple[_native.Statement | str, Any]) -> _Waiting:
        """Have a statement wait; the cursor does it.

        Args:
            asked: The statement in the server's form, and its parameters.
        """
        one = _Waiting(asked)
        if self._failed is not None:
            one.error = _not_run(self._failed)
            return one
        self._waiting.append(one)
        if len(self._waiting) >= MOST:
            self.send()
        return one

    def tell(self, one: _Waiting) -> _native.Answer:
        """Return a statement's answer; the cursor asks for it.

        Args:
            one: What waited.

        Raises:
            Error: What there is instead.
        """
        if not one.is_over:
            self.send()
        if one.answer is not None:
            return one.answer
        if one.error is self._failed:
            self._is_told = True
        raise one.error or _not_run(None)

    def send(self) -> None:
        """Send what waits, and take the answers, errors among them.

        Raises:
            Error: The connection is of no use.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            found = self._connection.run_each([one.asked for one in waiting])
        except BaseException as error:
            # What they raise is no one else's exception, with a traceback of its own.
            for one in waiting:
                one.error = _lost(error)
            raise
        for one, answered in zip(waiting, found, strict=False):
            if isinstance(answered, _native.Answer):
                one.answer = answered
                continue
            is_wires = isinstance(answered, _native.WireError)
            one.error = from_wire(answered) if is_wires else answered
            self._failed = self._failed or one.error
        for one in waiting[len(found) :]:
            one.error = _not_run(self._failed)

    def __enter__(self) -> Self:
        self._depth += 1
        self._connection.pipelined = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._connection.pipelined = None
        if error is None:
            self.sync()
            return
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.error = _not_run(error)
        self._failed, self._is_told = None, False


class PipelineCursor(Cursor):
    """A cursor in a pipeline: its statement's answer is there when it is looked at."""

    def __init__(self, connection: WireSession, pipeline: Pipeline) -> None:
        """Make a cursor; `Connection.cursor` does it within a pipeline's block.

        Args:
            connection: Its connection.
            pipeline: Its pipeline.
        """
        super().__init__(connection)
        self._pipeline = pipeline
        self._asked: _Waiting | None = None

    def execute(self, statement: str, parameters: Parameters | None = None) -> Self:
        """Have a statement wait.

        Args:
            statement: As `Cursor.execute` takes it; one statement.
            parameters: As there.

        Returns:
            The cursor itself. What it is looked at for says what has become of it.

        Raises:
            ProgrammingError: The statement does not fit its parameters.
        """
        connection = self._ready()
        statement = text_of(statement)
        asked: tuple[_native.Statement | str, Any]
        if parameters is None:
            asked = (whole(statement), None)
        else:
            split = parsed(statement)
            asked = (split.asked, arranged(split, parameters))
        self._asked = self._pipeline.add(asked)
        if connection.pipelined is not self._pipeline:  # its block has ended
            self._pipeline.sync()
        return self

    def _ready(self) -> WireSession:
        self._asked = None
        return super()._ready()

    def _settle(self) -> None:
        """Take the answer, for which what waits is sent."""
        asked = self._asked
        if asked is not None and not self._is_closed:
            answer = self._pipeline.tell(asked)
            self._asked = None
            self._answer, self._columns = answer, answer.columns
            self._rows = answer.rows

    @property
    def description(self) -> list[Described] | None:
        """The columns of the result; None where the statement has none."""
        self._settle()
        return super().description

    @property
    def columns(self) -> _native.Columns | None:
        """The columns of the result as the server has described them."""
        self._settle()
        return super().columns

    @property
    def rowcount(self) -> int:
        """How many rows the statement returned or changed; -1 where it has none."""
        self._settle()
        return super().rowcount

    @property
    def rownumber(self) -> int | None:
        """The number of the next row, from 0; None without a result."""
        self._settle()
        return super().rownumber

    @property
    def statusmessage(self) -> str | None:
        """What the server answered; None for nothing."""
        self._settle()
        return super().statusmessage

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, or None at the end; see `Cursor.fetchone`."""
        self._settle()
        return super().fetchone()

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Return the next rows; see `Cursor.fetchmany`.

        Args:
            size: How many at most.
        """
        self._settle()
        return super().fetchmany(size)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows that are left; see `Cursor.fetchall`."""
        self._settle()
        return super().fetchall()

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Move to another row; see `Cursor.scroll`.

        Args:
            value: By how many rows, or to which.
            mode: ``relative`` or ``absolute``.
        """
        self._settle()
        super().scroll(value, mode)


def _not_run(why: BaseException | None) -> PipelineAborted:
    what = "" if why is None else f": {type(why).__name__}"
    return PipelineAborted(
        "the statement was not run, because one before it in the pipeline has failed, "
        f"or the pipeline's block was left{what}",
        outcome="not_done",
    )


def _lost(error: BaseException) -> Error:
    """Make what a statement raises whose answer did not come."""
    outcome = error.outcome if isinstance(error, Error) else "unknown"
    what = str(error) if isinstance(error, Error) else type(error).__name__
    return OperationalError(
        f"the answers of the pipeline did not come: {what}", outcome=outcome
    )

"""Luigi: tasks with sessions, connections and names of their own, in every process.

Three lines install it, where the tasks are defined::

    from poolproof.integrations.luigi import install

    install(engine)
"""

from __future__ import annotations

import multiprocessing
import os
from contextvars import ContextVar
from multiprocessing import util
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    import luigi
    from luigi.worker import TaskProcess
except ImportError as error:
    raise ImportError(
        'poolproof.integrations.luigi needs Luigi: pip install "luigi>=3.5"'
    ) from error

from poolproof.doctor.engines import is_engine
from poolproof.integrations.jobs import Jobs
from poolproof.integrations.markers import Markers
from poolproof.integrations.naming import Naming
from poolproof.integrations.stopping import StopFlag, StopRequested

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session, scoped_session

    from poolproof.integrations.jobs import Job

__all__ = ["PoolproofTarget", "StopFlag", "StopRequested", "install"]

_Event = luigi.Event
# What the process that schedules hears when a `complete()` or `requires()` has used the
# database, perhaps in vain, and when a task's process is gone.
_OF_THE_SCHEDULER = (
    _Event.BROKEN_TASK,
    _Event.DEPENDENCY_DISCOVERED,
    _Event.DEPENDENCY_MISSING,
    _Event.DEPENDENCY_PRESENT,
    _Event.PROCESS_FAILURE,
    _Event.TIMEOUT,
)


def install(*sources: Any) -> None:
    """Keep the sessions and connections of tasks apart, and name them.

    It holds for every task of this process and of those that Luigi forks from it. Call
    it before `luigi.build`, where the engines are made. Idempotent.

    Args:
        *sources: Engines, `scoped_session` or `sessionmaker` objects, Flask-SQLAlchemy
            extensions. Engines for which no pool was chosen get `poolproof.Pool`.

    Raises:
        TypeError: Nothing, or something of another kind.
    """
    if not sources:
        msg = "install needs what the tasks use: engines, or sessions with one"
        raise TypeError(msg)
    for one in sources:
        _tasks.jobs.add(**{"engine" if is_engine(one) else "session": one})
    _tasks.listen()


class PoolproofTarget(luigi.Target):  # type: ignore[misc,unused-ignore]
    """A row in a marker table, for `Task.output`.

    In a task::

        def output(self):
            return PoolproofTarget(engine, self.task_id)

    It takes the place of `luigi.contrib.sqla.SQLAlchemyTarget`, with the same table. It
    works on an engine of yours, in all processes, and makes none. The table is made by
    the first `exists` or `touch`, also when many processes do so at once.
    """

    def __init__(
        self,
        source: Any,
        update_id: str,
        target_table: str = "",
        *,
        marker_table: str | None = None,
        within_s: float = 30.0,
    ) -> None:
        """Name what is marked; nothing is asked yet.

        Args:
            source: An engine of PostgreSQL, or a session that has one.
            update_id: What is done once this target exists, unique in the marker table;
                at most 128 characters. A task's ``task_id`` will do.
            target_table: What it was done to, for people; at most 128 characters.
            marker_table: The marker table's name, with ``schema.`` in front where it
                has one. None: Luigi's setting ``[sqlalchemy] marker-table``, or
                ``table_updates``.
            within_s: How long a look or a mark may take, in seconds, more than 0.

        Raises:
            TypeError: The source has no engine.
            ValueError: The engine is not one of PostgreSQL.
        """
        name = marker_table or luigi.configuration.get_config().get(
            "sqlalchemy", "marker-table", "table_updates"
        )
        self.update_id = update_id
        self.target_table = target_table
        self._markers = Markers(source, name, within_s=within_s)

    def __str__(self) -> str:
        """Return what Luigi shows in its messages."""
        return f"{self.target_table} {self.update_id}".strip()

    def exists(self) -> bool:
        """Say whether the mark is there."""
        return self._markers.has(self.update_id, self.target_table)

    def touch(
        self, within: Connection | Session | scoped_session[Any] | None = None
    ) -> None:
        """Make the mark, or renew it.

        Args:
            within: A connection or session whose transaction the mark belongs to, so
                that it is there if and only if the task's rows are. None: a transaction
                of its own.

        Raises:
            ValueError: The same `update_id` marks another `target_table`.
        """
        self._markers.add(self.update_id, self.target_table, within)


class _Open(NamedTuple):
    """A task that was begun, and its job."""

    task: luigi.Task
    job: Job

    @property
    def is_over(self) -> bool:
        """Whether its `run` has ended; Luigi lends a task its callbacks meanwhile.

        There is no event for the end of a task that asked for others first.
        """
        return getattr(self.task, "set_status_message", None) is None


class _Tasks:
    """The tasks of this process."""

    def __init__(self) -> None:
        self.jobs = Jobs("task", naming=None)
        self._names: Naming | None = None
        self._pid = os.getpid()
        # Tasks that were begun in this thread, a task inside a task's `run` last.
        self._open: ContextVar[tuple[_Open, ...]] = ContextVar(
            "poolproof_luigi_open", default=()
        )

    def listen(self) -> None:
        """Hear of all tasks from now on. Idempotent."""
        if self._names is not None:
            return
        self._names = Naming(str, self._task_name, renames=True)
        self._names.begin()
        handlers = {
            _Event.START: self.begin,
            _Event.SUCCESS: self.end,
            _Event.FAILURE: self.end,
            **dict.fromkeys(_OF_THE_SCHEDULER, self.tidy),
        }
        for event, handler in handlers.items():
            luigi.Task.event_handler(event)(handler)

    def begin(self, task: luigi.Task) -> None:
        """Begin a task, in the process and thread that runs it."""
        if _process_task() and self._pid != os.getpid():
            self._pid = os.getpid()
            # What was begun in the parent is the parent's.
            self._open.set(())
            self.jobs.forget()
            util.Finalize(None, self._leave, exitpriority=0)
        self.jobs.start(_process_task())
        self._end_over()
        job = self.jobs.begin(task.task_id, scope=task.task_family)
        self._open.set((*self._open.get(), _Open(task, job)))

    def end(self, task: luigi.Task, *_error: BaseException) -> None:
        """End a task; one that failed before its start has used its sessions, too."""
        if not self._is_open(task):
            self.tidy(task)
        while self._is_open(task):
            self._end_last()

    def tidy(self, task: luigi.Task, *_more: object) -> None:
        """Let no task inherit what the scheduling of another has left."""
        self._end_over()
        with self.jobs.job(f"scheduling {task.task_id}", task.task_family):
            pass

    def _is_open(self, task: luigi.Task) -> bool:
        return any(each.task is task for each in self._open.get())

    def _end_over(self) -> None:
        while (opened := self._open.get()) and opened[-1].is_over:
            self._end_last()

    def _end_last(self) -> None:
        *others, last = self._open.get()
        self._open.set(tuple(others))
        self.jobs.end(last.job)

    def _task_name(self) -> str:
        if forked_for := _process_task():
            return forked_for
        opened = self._open.get()
        return opened[-1].task.task_id if opened else ""

    def _leave(self) -> None:
        """End the process of one task in order."""
        while self._open.get():
            self._end_last()
        self.jobs.stop()


def _process_task() -> str:
    """Name the task that this process was forked for, in all of its threads."""
    process = multiprocessing.current_process()
    return process.task.task_id if isinstance(process, TaskProcess) else ""


_tasks = _Tasks()

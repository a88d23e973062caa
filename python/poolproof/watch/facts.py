"""What is watched at one instant: pools, who has their connections, the server."""

from __future__ import annotations

import dataclasses

__all__ = ["HeldConnection", "PoolLine", "Server", "Session", "View"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolLine:
    """One pool of one process.

    Attributes:
        process_id: The process.
        pool: The pool's name.
        idle: Connections at rest.
        used: Slots in use.
        most: Connections that there may be; None where there is no bound.
        waiting: Callers that wait.
        oldest_wait_s: For how long the first of them has waited, in seconds.
        checkouts: Checkouts since the process began.
        timeouts: Checkouts whose time was over.
        faults: Faults that cost a connection or more.
        discarded: Connections discarded.
        forks: Forks between the start of the program and the process.
        behind_s: How old this is, in seconds; a process writes once a second.
        is_main: Whether it forks those that work, and does no work of its own.
    """

    process_id: int
    pool: str
    idle: int = 0
    used: int = 0
    most: int | None = None
    waiting: int = 0
    oldest_wait_s: float = 0.0
    checkouts: int = 0
    timeouts: int = 0
    faults: int = 0
    discarded: int = 0
    forks: int = 0
    behind_s: float = 0.0
    is_main: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session, as the server sees it.

    Attributes:
        backend_pid: The server's process id.
        application: Its ``application_name``.
        state: ``"active"``, ``"idle"``, ``"idle in transaction"`` and so on; None where
            this role may not see it.
        waits_for: What it waits for, as the server calls it.
        since_s: For how long it has been in its state, in seconds.
        transaction_s: For how long its transaction has been open, in seconds.
        verb: The first word of its last statement.
    """

    backend_pid: int
    application: str
    state: str | None
    waits_for: str | None = None
    since_s: float | None = None
    transaction_s: float | None = None
    verb: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldConnection:
    """Who has a connection.

    Attributes:
        process_id: The process.
        pool: The pool's name.
        thread: The thread that checked it out.
        scope: The scope that it was checked out in.
        backend_pid: The server's process id of the session.
        held_s: For how long, in seconds.
        is_busy: Whether a statement is under way, as the driver says.
        session: What the server says of it, where it was asked.
    """

    process_id: int
    pool: str
    thread: str
    scope: str | None
    backend_pid: int | None
    held_s: float
    is_busy: bool | None
    session: Session | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the server says of all its clients.

    Attributes:
        shown: What it is called, without a secret.
        trouble: Why nothing is known; empty when something is.
        most: Its ``max_connections``.
        sessions: The sessions of its clients.
    """

    shown: str
    trouble: str = ""
    most: int = 0
    sessions: tuple[Session, ...] = ()

    @property
    def states(self) -> dict[str, int]:
        """How many sessions are in which state, most first."""
        counts: dict[str, int] = {}
        for session in self.sessions:
            state = session.state or "hidden"
            counts[state] = counts.get(state, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All of it.

    Attributes:
        directory: Where the processes keep what they say; None where none was named.
        pools: Pools, by process.
        holders: Who has connections, in the order that was asked for.
        server: What the server says, where one was named.
        strangers: Sessions that hold a transaction open and are of no pool here.
    """

    directory: str | None
    pools: tuple[PoolLine, ...] = ()
    holders: tuple[HeldConnection, ...] = ()
    server: Server | None = None
    strangers: tuple[Session, ...] = ()

    @property
    def processes(self) -> int:
        """How many processes say something."""
        return len({line.process_id for line in self.pools})

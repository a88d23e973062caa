"""The moments of a connection's life at which its peer may fall silent.

At each of them everybody who uses the pool makes the same call at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from poolproof.drill.calls import Call, all_at_once, join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection, Engine

    from poolproof.drill.stage import Stage

SIZE: Final = 8
"""Connections of the pool, and callers at each moment."""

CALL_S: Final = 0.4
"""The deadline of a ping, of a call and of a reset."""

CONNECT_S: Final = 2.0
"""The deadline of a whole checkout; psycopg cannot connect with a shorter one."""

PATIENCE_S: Final = 0.4
"""How long past its deadline a call is waited for."""

FREED_S: Final = 3.0
"""How long those who were freed may take to clean up."""

IDLE_S: Final = 0.05
"""How long a connection rests before it is asked."""

_OWN_WORK_S: Final = 0.3  # pg8000 bounds its reads, not what it does before the first
_ASK: Final = text("SELECT CAST(:token AS text)")


@dataclass(slots=True)
class Scene:
    """One moment: an engine, who calls, and what each came back with."""

    stage: Stage
    engine: Engine
    name: str
    size: int
    wrong: list[str] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    opening_s: float = 0.0

    def token(self, n: int) -> str:
        """Return what the *n*th caller asks for, or the id of its row."""
        return f"{self.stage.tag}/{self.name}/{n}"

    def warm(self) -> None:
        """Open every connection of the pool, and give them back."""
        calls = [
            Call(self.engine.connect, CONNECT_S, lambda it: it.close())  # type: ignore[attr-defined]
            for _ in range(self.size)
        ]
        began = time.monotonic()
        all_at_once(calls, PATIENCE_S)
        self.opening_s = time.monotonic() - began
        join(calls, FREED_S)

    def held(self) -> list[tuple[str, Connection]]:
        """Check every connection out, each with a row written and not committed."""
        held = []
        for n in range(self.size):
            connection = self.engine.connect()
            connection.execute(self.stage.insert(), {"id": self.token(n)})
            held.append((self.token(n), connection))
        return held

    def ask(self, connection: Connection, token: str) -> None:
        """Ask for a token, and note an answer to another question."""
        rows = [tuple(row) for row in connection.execute(_ASK, {"token": token})]
        if rows != [(token,)]:
            self.wrong.append(f"{self.name}: asked for {token}, got {rows}")


def _ping(scene: Scene) -> list[Call]:
    """Idle connections are checked out: whatever looks at them gets no answer."""
    scene.warm()
    time.sleep(2 * IDLE_S)
    limit_s = CALL_S + 2 * scene.opening_s  # a ping, then a new connection
    return [_checkout(scene, limit_s) for _ in range(scene.size)]


def _connect(scene: Scene) -> list[Call]:
    """The pool is empty, or was never used, and nobody answers at the door."""
    if scene.stage.trial % 2 == 0:
        scene.warm()
        scene.engine.dispose()
    own_s = _OWN_WORK_S if scene.stage.driver == "pg8000" else 0.0
    return [_checkout(scene, CONNECT_S + own_s) for _ in range(scene.size)]


def _checkout(scene: Scene, limit_s: float) -> Call:
    return Call(scene.engine.connect, limit_s, lambda it: it.close())  # type: ignore[attr-defined]


def _within(scene: Scene, work: Callable[[str, Connection], object]) -> Iterable[Call]:
    """Let each caller do its *work* within a deadline, and give its connection back."""

    def act(token: str, connection: Connection) -> None:
        try:
            with scene.stage.deadline(CALL_S):
                work(token, connection)
        finally:
            connection.close()

    for token, connection in scene.held():
        yield Call(lambda t=token, c=connection: act(t, c), CALL_S)  # type: ignore[misc]


def _execute(scene: Scene) -> list[Call]:
    """A query is not answered."""

    def work(token: str, connection: Connection) -> None:
        scene.never.append(token)
        scene.ask(connection, token)
        connection.rollback()

    return list(_within(scene, work))


def _commit(scene: Scene) -> list[Call]:
    """A COMMIT is not answered."""

    def work(token: str, connection: Connection) -> None:
        connection.commit()
        scene.committed.append(token)

    return list(_within(scene, work))


def _rollback(scene: Scene) -> list[Call]:
    """A ROLLBACK is not answered."""

    def work(token: str, connection: Connection) -> None:
        scene.never.append(token)
        connection.rollback()

    return list(_within(scene, work))


def _reset(scene: Scene) -> list[Call]:
    """The pool's own ROLLBACK at check-in is not answered; the caller only closes."""
    held = [scene.engine.raw_connection() for _ in range(scene.size)]
    for connection in held:
        connection.cursor().execute("SELECT 1")  # which begins a transaction
    return [Call(connection.close, CALL_S) for connection in held]


MOMENTS: Final[dict[str, Callable[[Scene], list[Call]]]] = {
    "ping": _ping,
    "execute": _execute,
    "commit": _commit,
    "rollback": _rollback,
    "reset": _reset,
    "connect": _connect,
}
"""Where a peer may fall silent."""

"""The application inside the Celery worker of `poolproof.drill.services.celery`.

It has used its engine when it is loaded, as applications do that look at their tables;
with the prefork pool that is before the fork.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Final

from celery import Celery  # type: ignore[import-untyped,unused-ignore]
from celery.exceptions import (  # type: ignore[import-untyped,unused-ignore]
    SoftTimeLimitExceeded,
)
from sqlalchemy import text
from sqlalchemy.orm import scoped_session, sessionmaker

from poolproof.drill.service import taken_over
from poolproof.drill.stage import checked
from poolproof.drill.traffic import warm

POOL_SIZE: Final = 2
MAX_OVERFLOW: Final = 1
SETTINGS: Final = "POOLPROOF_DRILL_CELERY"
"""The variable that holds Celery's configuration as JSON."""

SOFT_LIMIT_S: Final = 0.5
_ASK: Final = text("SELECT CAST(:token AS text)")
# psycopg2 sees no signal before the call returns; and on a busy machine the worker may
# send it seconds late.
_SLEEP: Final = text("SELECT pg_sleep(0.5)")
_SLEEPS: Final = 100

stage = taken_over()
engine = stage.engine(pool_size=POOL_SIZE, max_overflow=MAX_OVERFLOW)
session = scoped_session(sessionmaker(engine))
# A task that is run again finds what its first run has left.
insert = text(
    f"INSERT INTO {checked(stage.table)} (id) VALUES (:id) ON CONFLICT DO NOTHING"  # noqa: S608 (the name is checked)
)

app = Celery("drill")
app.conf.update(
    json.loads(os.environ[SETTINGS]),
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=8,
    worker_hijack_root_logger=False,
)
if stage.pool == "poolproof":
    from poolproof.integrations import celery as integration

    integration.install(app, session=session)


class TaskRefusedError(RuntimeError):
    """What a task raises that is to fail."""


@app.task(name="drill.order", shared=False)  # type: ignore[untyped-decorator,unused-ignore]
def order(row: str) -> str:
    """Ask, write a row and commit it; answer with what the database said."""
    answer = _ask(row)
    session.execute(insert, {"id": row})
    session.commit()
    return answer


@app.task(name="drill.refuse", throws=(TaskRefusedError,))  # type: ignore[untyped-decorator,unused-ignore]
def refuse(row: str) -> str:
    """Write a row, and fail before it is committed."""
    answer = _ask(row)
    session.execute(insert, {"id": row})
    raise TaskRefusedError(answer)


@app.task(  # type: ignore[untyped-decorator,unused-ignore]
    name="drill.linger", soft_time_limit=SOFT_LIMIT_S, throws=(SoftTimeLimitExceeded,)
)
def linger(row: str) -> str:
    """Write a row, and ask for more time than there is."""
    answer = _ask(row)
    session.execute(insert, {"id": row})
    for _ in range(_SLEEPS):
        session.execute(_SLEEP)
    return answer


@app.task(name="drill.die_early")  # type: ignore[untyped-decorator,unused-ignore]
def die_early(row: str) -> str:
    """Write a row; be killed before it is committed, but not the second time."""
    first = session.execute(insert, {"id": f"{row}/first"}).rowcount  # type: ignore[attr-defined]
    session.commit()
    answer = _ask(row)
    session.execute(insert, {"id": row})
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    session.commit()
    return answer


@app.task(name="drill.die_late")  # type: ignore[untyped-decorator,unused-ignore]
def die_late(row: str) -> str:
    """Commit a row, and be killed before anybody knows, but not the second time."""
    answer = _ask(row)
    first = session.execute(insert, {"id": row}).rowcount  # type: ignore[attr-defined]
    session.commit()
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer


def _ask(token: str) -> str:
    """Return the rows that answer a question to which only *token* is right."""
    rows = session.execute(_ASK, {"token": token}).all()
    return rows[0][0] if len(rows) == 1 and len(rows[0]) == 1 else repr(rows)


warm(engine, POOL_SIZE)

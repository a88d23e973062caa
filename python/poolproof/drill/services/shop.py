"""The shop that Gunicorn serves, loaded once and forked with open connections.

Each answer is the database's own: the order's token, asked for after the row was
written. The status says what became of the row.
"""

from __future__ import annotations

import os
import time
from typing import Final

import flask
from sqlalchemy import exc, text
from sqlalchemy.orm import scoped_session, sessionmaker

from poolproof.drill.service import taken_over
from poolproof.drill.traffic import warm

SIZE: Final = 2
OVERFLOW: Final = 1
WORKER: Final = "X-Worker"
"""The header that names the process id of the worker that answered."""

_LATE_S: Final = 0.1
_TOO_LONG_S: Final = 0.3

app = flask.Flask(__name__)
stage = taken_over()
engine = stage.engine(pool_size=SIZE, max_overflow=OVERFLOW)
session = scoped_session(sessionmaker(engine))
_ask = text("SELECT CAST(:token AS text)")


class RefusedError(Exception):
    """The application fails in the middle of a request, with its row written."""


def _answer(token: str) -> str:
    return str(session.scalar(_ask, {"token": token}))


@app.get("/")
def index() -> str:
    """Say that the shop is open, without the database."""
    time.sleep(0.02)  # leave the next one who asks to another worker
    return "open"


@app.get("/order/<token>")
def order(token: str) -> str:
    """Write a row and commit."""
    session.execute(stage.insert(), {"id": f"{stage.tag}/{token}"})
    session.commit()
    return _answer(token)


@app.get("/cancel/<token>")
def cancel(token: str) -> str:
    """Write a row and roll back."""
    session.execute(stage.insert(), {"id": f"{stage.tag}/{token}"})
    session.rollback()
    return _answer(token)


@app.get("/refuse/<token>")
def refuse(token: str) -> str:
    """Write a row and raise, with the transaction open."""
    session.execute(stage.insert(), {"id": f"{stage.tag}/{token}"})
    raise RefusedError(_answer(token))


@app.get("/late/<token>")
def late(token: str) -> tuple[str, int]:
    """Write a row, and take longer than the deadline, where the pool has one."""
    session.execute(stage.insert(), {"id": f"{stage.tag}/{token}"})
    status = 200
    try:
        with stage.deadline(_LATE_S):
            session.execute(text(f"SELECT pg_sleep({_TOO_LONG_S})"))
            session.execute(text("SELECT 1"))
    except exc.DBAPIError as error:
        if not error.connection_invalidated:
            raise
        status = 504
    session.rollback()
    # The server sees that its client has gone when it has slept: not two at a time.
    time.sleep(_TOO_LONG_S - _LATE_S)
    return token, status


@app.errorhandler(RefusedError)
def refused(error: RefusedError) -> tuple[str, int]:
    """Answer with what the database said before the application failed."""
    return str(error), 409


@app.errorhandler(Exception)
def fail(error: Exception) -> tuple[str, int]:
    """Say what went wrong."""
    return f"{type(error).__name__}: {str(error).strip()[:200]}", 500


@app.after_request
def name_worker(response: flask.Response) -> flask.Response:
    """Say which worker answered."""
    response.headers[WORKER] = str(os.getpid())
    return response


if stage.pool == "poolproof":
    from poolproof.integrations.flask import init_app

    init_app(app, session)
else:

    @app.teardown_appcontext
    def remove_session(_error: BaseException | None) -> None:
        """Give the connection back, as Flask-SQLAlchemy does."""
        session.remove()


# As many applications do when they are loaded; with preload_app it is before the fork.
warm(engine, SIZE)

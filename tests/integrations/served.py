"""The application that the tests let Gunicorn serve, configured by the environment."""

from __future__ import annotations

import os
import time

import flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from poolproof.integrations import flask as integration

TABLE = os.environ["TEST_TABLE"]

app = flask.Flask("served")
app.config.update(
    SQLALCHEMY_DATABASE_URI=os.environ["TEST_URL"],
    SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 2, "max_overflow": 1},
)
db = SQLAlchemy()
if os.environ.get("TEST_POOL") == "queue":
    db.init_app(app)
else:
    integration.init_app(app, db)
    db.init_app(app)


if os.environ.get("POOLPROOF_METRICS_DIR") or os.environ.get("TEST_METRICS"):
    integration.add_metrics(app)
if os.environ.get("TEST_CONNECTS"):  # with preload_app: in the master
    with app.app_context():
        db.session.execute(text("select 1"))


@app.get("/order/<token>")
def order(token):
    """Write a row, and answer with what the database says of it."""
    db.session.execute(text(f"insert into {TABLE} values (:n)"), {"n": int(token)})
    db.session.commit()
    return str(db.session.scalar(text("select :token"), {"token": token}))


@app.get("/worker")
def worker():
    """Answer with the worker's process id."""
    return str(os.getpid())


@app.get("/stuck")
def stuck():
    """Hold a row's lock, and wait for the database longer than anybody."""
    db.session.execute(text(f"insert into {TABLE} values (-1)"))
    db.session.execute(text("select pg_sleep(60)"))
    return "never"


@app.get("/asleep")
def asleep():
    """Hold a connection, and be busy in Python."""
    db.session.execute(text(f"insert into {TABLE} values (-2)"))
    time.sleep(60)
    return "never"


def warm():
    """Open connections as an application does that looks at its schema at import."""
    with app.app_context():
        opened = [db.engine.connect() for _ in range(2)]
        for connection in opened:
            connection.execute(text("select 1"))
        for connection in opened:
            connection.close()


if os.environ.get("TEST_WARM"):
    warm()

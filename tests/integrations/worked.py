"""The application that the tests let Celery work for, configured by the environment."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import threading
import time

from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import create_engine, exc, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool

import poolproof

TABLE = os.environ["TEST_TABLE"]
HYGIENE = os.environ.get("TEST_HYGIENE", "install")
KIND = os.environ.get("TEST_SESSION", "scoped")
NAME = text("select current_setting('application_name')")
BACKEND = text("select pg_backend_pid()")
INSERT = text(f"insert into {TABLE} values (:n)")

app = Celery("worked")
app.conf.update(json.loads(os.environ["TEST_CELERY"]), worker_hijack_root_logger=False)

if KIND == "flask":
    import flask
    from flask_sqlalchemy import SQLAlchemy

    from poolproof.integrations import flask as poolproof_flask

    web = flask.Flask("web")
    web.config.update(
        SQLALCHEMY_DATABASE_URI=os.environ["TEST_URL"],
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 2, "max_overflow": 1},
    )
    db = SQLAlchemy(web)
    poolproof_flask.init_app(web, db)
    web.app_context().push()
    engine, session = db.engine, db.session
else:
    engine = create_engine(
        os.environ["TEST_URL"],
        poolclass=QueuePool if os.environ.get("TEST_POOL") else poolproof.Pool,
        pool_size=2,
        max_overflow=1,
        pool_timeout=10,
    )
    session = scoped_session(sessionmaker(engine))

given = {
    "scoped": {"session": session},
    "maker": {"session": session.session_factory},
    "flask": {"session": globals().get("db")},
    "engine": {"engine": engine},
    "none": {},
}[KIND]
if HYGIENE == "install":
    from poolproof.integrations import celery as poolproof_celery

    for _ in range(2):
        poolproof_celery.install(app, **given)
elif HYGIENE == "after_fork":

    @signals.worker_process_init.connect
    def begin(**_more):
        """Renew the pools as an application does that wants it to be seen."""
        poolproof.after_fork()


left = []


def resting(**_more):
    """Say how many connections rest; it comes after what was installed."""
    # Celery has a hand on sys.stdout.
    os.write(1, f"RESTING {engine.pool.checkedin()}\n".encode())


signals.worker_process_init.connect(resting)
signals.worker_process_shutdown.connect(resting)
signals.worker_shutdown.connect(resting)


@app.task(name="order")
def order(n):
    """Write a row; answer with what the database says of it."""
    session.execute(INSERT, {"n": n})
    session.commit()
    return session.scalar(text("select :n"), {"n": str(n)})


@app.task(name="look")
def look():
    """Answer with what a task finds before it begins, and how it is called."""
    found = {"out": engine.pool.checkedout(), "is_new": not session.registry.has()}
    with engine.connect() as connection:
        name, backend = connection.scalar(NAME), connection.scalar(BACKEND)
    found |= {"discarded": engine.pool.stats().discarded, "process": os.getpid()}
    return found | {"name": name, "backend": backend}


@app.task(name="leak")
def leak():
    """Leave a session and a connection behind."""
    session.execute(INSERT, {"n": -1})
    left.append(engine.connect())
    return left[-1].scalar(BACKEND)


@app.task(name="leak_session")
def leak_session():
    """Leave a session that belongs to no scope behind."""
    one = sessionmaker(engine)() if KIND == "engine" else given["session"]()
    left.append(one)
    one.execute(INSERT, {"n": -1})
    return one.scalar(BACKEND)


@app.task(name="linger", soft_time_limit=0.5)
def linger():
    """Be interrupted in a statement; go on with the next one."""
    with Session(engine) as one:
        backend = one.scalar(BACKEND)
        try:
            one.execute(text("select pg_sleep(2), 'old'"))
        except SoftTimeLimitExceeded:
            how = "interrupted"
        except exc.OperationalError as error:  # how psycopg words it
            how = type(error.orig).__name__
        else:
            how = "finished"
    answers = []
    for n in range(3):
        with engine.connect() as connection:
            answers.append(connection.scalar(text("select :n"), {"n": str(n)}))
    return {"how": how, "backend": backend, "answers": answers}


@app.task(name="outer")
def outer():
    """Run another task inside this one, in the middle of a transaction."""
    session.execute(INSERT, {"n": 1})
    backend = session.scalar(BACKEND)
    look.apply()
    return session.scalar(BACKEND) == backend and session().in_transaction()


@functools.cache
def async_engine():
    """Return the engine of what runs in loops; one for all processes."""
    return create_async_engine(
        make_url(os.environ["TEST_URL"]).set(drivername="postgresql+psycopg"),
        poolclass=poolproof.AsyncPool,
        pool_size=2,
        max_overflow=0,
        pool_timeout=60,
    )


loops = {}


@app.task(name="async_order")
def async_order(n, lasts):
    """Write a row, in a loop of this task's own or in one that lasts."""
    if not lasts:
        return asyncio.run(async_work(n))
    thread = threading.get_ident()
    if thread not in loops:
        loops[thread] = asyncio.new_event_loop()
    return loops[thread].run_until_complete(async_work(n))


async def async_work(n):
    """Return what the database says, and who has said it."""
    async with async_engine().begin() as connection:
        await connection.execute(INSERT, {"n": n})
        answer = await connection.scalar(text("select :n"), {"n": str(n)})
        return answer, await connection.scalar(BACKEND), os.getpid()


@app.task(name="doze")
def doze(seconds):
    """Be busy."""
    session.execute(text("select 1"))
    time.sleep(seconds)


def warm():
    """Use the engine at import, before the worker forks."""
    opened = [engine.connect() for _ in range(2)]
    for connection in opened:
        connection.execute(text("select 1"))
    for connection in opened:
        connection.close()


logging.basicConfig(level="WARNING")
if not os.environ.get("TEST_COLD"):
    warm()


if os.environ.get("TEST_ASYNC"):  # before the fork, in a loop that is closed by then
    asyncio.run(async_work(-1))

"""A shop's tasks: SQLAlchemy, and two lines for the pool."""

from __future__ import annotations

import json
import os

from celery import Celery
from sqlalchemy import create_engine, text
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    mapped_column,
    scoped_session,
    sessionmaker,
)

engine = create_engine(os.environ["SHOP_DATABASE"], pool_size=4, max_overflow=0)
Session = scoped_session(sessionmaker(engine))

app = Celery("shop")
app.conf.update(
    json.loads(os.environ["SHOP_CELERY"]),
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_hijack_root_logger=False,
)
if os.environ.get("SHOP_POOL") != "queue":
    from poolproof.integrations import celery as poolproof_celery

    poolproof_celery.install(app, session=Session)


class Base(DeclarativeBase):
    """The shop's tables."""


class Order(Base):
    """What a customer ordered."""

    __tablename__ = "order"

    number: Mapped[int] = mapped_column(primary_key=True)
    process: Mapped[int]


@app.task(name="shop.order", soft_time_limit=10)
def order(number: int) -> str:
    """Take an order, and answer with what the database says of it."""
    # The task may run again, when its process has died after the commit.
    Session.merge(Order(number=number, process=os.getpid()))
    Session.commit()
    return str(Session.scalar(text("select :number"), {"number": str(number)}))


# What many applications do when they are loaded: make tables, read settings. It happens
# before the worker forks, and leaves open connections in the pool.
Base.metadata.create_all(engine)
opened = [engine.connect() for _ in range(4)]
for connection in opened:
    connection.execute(text("select 1"))
for connection in opened:
    connection.close()

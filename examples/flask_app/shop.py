"""A shop: Flask-SQLAlchemy, and one line for the pool."""

from __future__ import annotations

import os

import flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from poolproof.integrations import flask as poolproof_flask

app = flask.Flask("shop")
app.config.update(
    SQLALCHEMY_DATABASE_URI=os.environ["SHOP_DATABASE"],
    SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 4, "max_overflow": 0},
)
db = SQLAlchemy(app)
if os.environ.get("SHOP_POOL") != "queue":
    poolproof_flask.init_app(app, db)


class Order(db.Model):  # type: ignore[name-defined,misc]
    """What a customer ordered."""

    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[int]


@app.get("/")
def index() -> str:
    """Say that the shop is open, without the database."""
    return "open"


@app.post("/order/<int:number>")
def order(number: int) -> str:
    """Take an order, and answer with what the database says of it."""
    db.session.add(Order(number=number, worker=os.getpid()))
    db.session.commit()
    return str(db.session.scalar(text("select :number"), {"number": str(number)}))


# What many applications do when they are loaded: make tables, read settings. With
# preload_app it happens before the fork, and leaves open connections in the pool.
with app.app_context():
    db.create_all()
    opened = [db.engine.connect() for _ in range(4)]
    for connection in opened:
        connection.execute(text("select 1"))
    for connection in opened:
        connection.close()

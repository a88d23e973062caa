"""A shop: FastAPI with an async engine, and one line for the pool."""

from __future__ import annotations

import asyncio
import os

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from poolproof.integrations import starlette as poolproof_starlette

engine = create_async_engine(os.environ["SHOP_DATABASE"], pool_size=4, max_overflow=0)
sessions = async_sessionmaker(engine)
app = FastAPI()
if os.environ.get("SHOP_POOL") != "queue":
    poolproof_starlette.init_app(app, engine)


class Base(DeclarativeBase):
    """The shop's tables."""


class Order(Base):
    """What a customer ordered."""

    __tablename__ = "order"

    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[int]


async def take(session: AsyncSession, number: int) -> str:
    """Write an order; return what the database says of it."""
    session.add(Order(number=number, worker=os.getpid()))
    await session.commit()
    # It takes a while, so that there is time to hang up.
    ask = text("select :number from pg_sleep(0.02)")
    return str(await session.scalar(ask, {"number": str(number)}))


@app.get("/")
async def index() -> str:
    """Say that the shop is open, without the database."""
    return "open"


@app.post("/order/{number}")
async def order(number: int) -> str:
    """Take an order, and answer with what the database says of it."""
    async with sessions() as session:
        return await take(session, number)


async def prepare() -> None:
    """Make the tables, and have connections open."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    opened = [await engine.connect() for _ in range(4)]
    for connection in opened:
        await connection.execute(text("select 1"))
    for connection in opened:
        await connection.close()


# What many applications do when they are loaded: make tables, read settings. With
# preload_app it happens before the fork, in a loop that is closed by then.
asyncio.run(prepare())

"""What is examined: an engine, how it is run, and what was found out once for all."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

from poolproof.doctor import secret_words
from poolproof.doctor.deployment import Deployment
from poolproof.doctor.process import take

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine
    from sqlalchemy.pool import Pool

    from poolproof.doctor.connection import ReadOnlyConnection
    from poolproof.doctor.path_facts import PathFacts
    from poolproof.doctor.process import Census
    from poolproof.doctor.server_facts import ServerFacts

__all__ = ["Subject"]


@dataclasses.dataclass(slots=True, kw_only=True)
class Subject:
    """What the checks look at.

    Attributes:
        engine: The engine; of an async one its sync side.
        shown: What it is called, without a secret.
        is_application: Whether it is an application's own engine, in its own process;
            otherwise it was made from a URL, and nothing is known of its pool.
        deployment: How it is run.
        pools: Every pool of a process that leads to the same server.
        sources: Source files of the application.
        patience: How many times as long as usual everything may take.
        today: The day.
        connection: A session of the server's, while there is one.
        server: What the server says.
        census: What there is of SQLAlchemy in this process, once it was taken.
        path: What stands in between, once it was found out.
        no_server: Why there is none of both.
    """

    engine: Engine
    shown: str
    is_application: bool = False
    deployment: Deployment = dataclasses.field(default_factory=Deployment)
    pools: tuple[Pool, ...] = ()
    sources: tuple[Path, ...] = ()
    patience: float = 1.0
    today: dt.date = dataclasses.field(default_factory=dt.date.today)
    connection: ReadOnlyConnection | None = None
    server: ServerFacts | None = None
    census: Census | None = None
    path: PathFacts | None = None
    no_server: str = "it was not asked"

    def __post_init__(self) -> None:
        """Take the engine's own pool where no other was named."""
        self.pools = self.pools or (self.engine.pool,)

    @property
    def pool(self) -> Pool:
        """The engine's pool."""
        return self.engine.pool

    @property
    def settings(self) -> Any:
        """The settings of a `poolproof.Pool`; None of another."""
        return getattr(self.engine.pool, "settings", None)

    def taken(self) -> Census:
        """Return what there is of SQLAlchemy in this process, looked for once."""
        if self.census is None:
            self.census = take()
        return self.census

    def redact(self, text: str) -> str:
        """Blot out every secret of the engine's URL, and of the environment.

        Args:
            text: What is to be shown.
        """
        found = [*secret_words.of_url(self.engine.url), *secret_words.of_environment()]
        return secret_words.redact(text, found)

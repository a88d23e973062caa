"""The pool and the guard for every engine of the process, by environment variable.

Put this line anywhere before the first engine is created::

    import poolproof.auto

With ``POOLPROOF=1`` in the environment it makes every engine behave as if its URL had
``?plugin=poolproof``; without the variable it does nothing. It is for URLs that are
shared with ``psql`` and other programs on libpq, which refuse that parameter.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.engine import CreateEnginePlugin

    Instantiate = Callable[
        [URL, Mapping[str, Any]], tuple[URL, list[CreateEnginePlugin], dict[str, Any]]
    ]

__all__ = ["enabled", "install"]

VARIABLE: Final = "POOLPROOF"
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})
_NAME = "poolproof"
_PLACE = "_instantiate_plugins"
_MARK = "_poolproof"


def enabled() -> bool:
    """Whether the environment asks for it.

    Raises:
        ValueError: The variable has a value that is neither on nor off.
    """
    value = os.environ.get(VARIABLE, "")
    word = value.strip().lower()
    if word in _ON:
        return True
    if word in _OFF:
        return False
    msg = (
        f"{VARIABLE}={value!r} is not understood: allowed are 1, true, yes, on "
        "and 0, false, no, off"
    )
    raise ValueError(msg)


def install() -> None:
    """Load the plugin into every engine that is created from now on.

    Doing it again does nothing.

    Raises:
        ImportError: This SQLAlchemy reads its plugins in another place.
    """
    # Every way to an engine, create_engine, create_async_engine and engine_from_config,
    # by whatever name they were imported and however early, asks its URL for the
    # plugins to load. Adding ours there runs the very same code as ?plugin=poolproof.
    # The public hooks do not reach as far: a dialect may override
    # get_dialect_pool_class, and that is not asked when a pool class is given, although
    # the engine is to be guarded then too.
    original: Instantiate | None = getattr(URL, _PLACE, None)
    if original is None:
        msg = (
            f"poolproof.auto does not know this SQLAlchemy: URL.{_PLACE} is missing; "
            "use ?plugin=poolproof or poolclass=poolproof.Pool"
        )
        raise ImportError(msg)
    if getattr(original, _MARK, False):
        return
    plugins.register(_NAME, "poolproof.plugin", "Plugin")

    @functools.wraps(original)
    def instantiate(
        self: URL, kwargs: Mapping[str, Any]
    ) -> tuple[URL, list[CreateEnginePlugin], dict[str, Any]]:
        named = self.query.get("plugin", ())
        in_url = (named,) if isinstance(named, str) else named
        listed = list(kwargs.get("plugins") or ())
        if _NAME not in listed and _NAME not in in_url:
            kwargs = {**kwargs, "plugins": [*listed, _NAME]}
        return original(self, kwargs)

    setattr(instantiate, _MARK, True)
    setattr(URL, _PLACE, instantiate)


if enabled():
    install()

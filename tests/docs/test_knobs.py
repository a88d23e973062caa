"""The page of knobs has every parameter of the pool, with its default."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import sqlalchemy.pool

import poolproof

CHECKOUT = Path(__file__).resolve().parents[2]


def documented() -> dict[str, str]:
    """Return the pool's parameters in the page, each with its default as written."""
    page = (CHECKOUT / "docs" / "knobs.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \|.*\| `(.+)` \|$", page, re.MULTILINE)
    return dict(rows)


def real() -> dict[str, object]:
    """Return the pool's parameters with their defaults, SQLAlchemy's included."""
    found: dict[str, object] = {}
    for cls in (sqlalchemy.pool.Pool, poolproof.Pool):
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            named = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            if named and name not in {"self", "creator"} and not name.startswith("_"):
                found[name] = parameter.default
    return found


def test_every_parameter_is_on_the_page_and_no_other() -> None:
    assert documented().keys() == real().keys()


def test_every_default_is_as_the_page_says() -> None:
    # SQLAlchemy's True is its older name for "rollback".
    written = {
        name: text.replace('"rollback"', "True") for name, text in documented().items()
    }
    assert written == {name: repr(value) for name, value in real().items()}


def test_every_name_for_create_engine_is_accepted(tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "knobs.md").read_text()
    names = re.findall(
        r"^\| `((?!create_engine)[a-z_]+)` \| `\w+` \|", page, re.MULTILINE
    )
    values = {
        "pool_reset_on_return": "rollback",
        "pool_logging_name": "a",
        "pool_events": [],
        "checkout_timeout": 1,
        "hold_warning": 1,
        "nested_timeout": 0.5,
        "hold_timeout": 2,
        "host_budget": ("a", 1, str(tmp_path)),
        "keep_alive": (1, 1, 1),
        "control_dsn": "postgresql://app@db/app",
    }
    assert len(names) > 8
    for name in names:
        value = values.get(
            name,
            False
            if name
            in {"pool_pre_ping", "pool_use_lifo", "echo_pool", "end_stranded_backends"}
            else 1,
        )
        sqlalchemy.create_engine("sqlite://", poolclass=poolproof.Pool, **{name: value})

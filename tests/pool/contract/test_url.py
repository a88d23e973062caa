"""The pool's knobs in a URL: ``?plugin=poolproof&poolproof_hold_timeout=5``."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

import poolproof
from plugins.processes import run_script
from poolproof.pool import knobs

URL = "postgresql+psycopg2://u@h/d?plugin=poolproof"

# As written in a URL, and as it is in the pool then. A knob that has no value here
# fails the test of all of them.
VALUES = {
    "pool_size": ("7", 7),
    "max_overflow": ("-1", -1),
    "pool_timeout": ("none", None),
    "pool_recycle": ("600", 600),
    "pool_use_lifo": ("yes", True),
    "pool_pre_ping": ("always", "always"),
    "pool_reset_on_return": ("commit", sa.pool.reset_commit),
    "echo_pool": ("false", False),
    "pool_logging_name": ("5", "5"),
    "checkout_timeout": ("8.5", 8.5),
    "ping_idle_after": ("0", 0),
    "ping_timeout": ("1.5", 1.5),
    "keep_alive": ("9,8,7", (9, 8, 7)),
    "min_idle": ("1", 1),
    "end_stranded_backends": ("on", True),
    "control_dsn": ("host%3Ddb%20password%3D5", "host=db password=5"),
}


def made(*parameters, **arguments):
    return sa.create_engine("&".join([URL, *parameters]), **arguments)


@pytest.mark.parametrize("name", knobs.KNOBS)
def test_every_knob_may_stand_there(name, tmp_path):
    words, value = VALUES.get(name, ("3", 3))
    if name == "host_budget":
        words, value = f"app:7:{tmp_path}", ("app", 7, str(tmp_path))
    engine = made(f"poolproof_{name}={words}")
    given = engine.pool.given()[knobs.KNOBS[name]]
    assert (given, type(given)) == (value, type(value))
    assert engine.pool.origins == {name: "URL"}
    assert engine.pool.recreate().origins == engine.pool.origins
    assert not engine.url.query
    engine.dispose()


def test_several_may_and_an_empty_one_is_none():
    engine = made(
        "poolproof_hold_timeout=5", "poolproof_max_idle=", "poolproof_pool_size=2"
    )
    settings = engine.pool.settings
    assert (settings.hold_timeout, settings.max_idle) == (5, 600)
    assert engine.pool.size() == 2


def test_an_argument_goes_before():
    engine = made("poolproof_pool_size=2", "poolproof_hold_timeout=5", pool_size=9)
    assert engine.pool.size() == 9
    assert engine.pool.origins == {"hold_timeout": "URL"}


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("poolproof_poolsize=5", "did you mean poolproof_pool_size?"),
        ("poolproof_timeout=5", "did you mean poolproof_pool_timeout?"),
        ("poolproof_freshness=5", "there are: poolproof_checkout_timeout, "),
        ("poolproof_hold_timeout=soon", "must be seconds, more than 0, or None"),
        ("poolproof_hold_timeout=0", "must be seconds, more than 0, or None"),
        ("poolproof_pool_use_lifo=perhaps", "must be True or False"),
        ("poolproof_keep_alive=1,2", "must be three whole numbers"),
        ("poolproof_pool_size=5&poolproof_pool_size=6", "stands in the URL 2 times"),
    ],
)
def test_a_wrong_one_is_refused_by_its_name(parameter, said):
    with pytest.raises(exc.ArgumentError) as caught:
        made(parameter)
    assert str(caught.value).startswith(parameter.partition("=")[0])
    assert said in str(caught.value)


def test_two_that_do_not_go_together_are_refused():
    with pytest.raises(exc.ArgumentError, match="min_idle is 9 and pool_size is 5"):
        made("poolproof_min_idle=9")


def test_the_driver_gets_none_of_them(pg_url, driver):
    added = {"plugin": "poolproof", "poolproof_hold_timeout": "5"}
    engine = sa.create_engine(pg_url(driver).update_query_dict(added))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1
    assert engine.pool.settings.hold_timeout == 5
    engine.dispose()


@pytest.mark.parametrize(
    "make",
    [
        lambda url: sa.create_engine(url, poolclass=poolproof.Pool),
        lambda url: poolproof.guard(sa.create_engine(url)),
    ],
    ids=["pool", "guard"],
)
@pytest.mark.parametrize("module", ["psycopg2", "psycopg", "pg8000"])
def test_without_the_plugin_it_is_refused_before_the_driver_gets_it(make, module):
    url = f"postgresql+{module}://u:secret@h/d?poolproof_hold_timeout=5"
    with pytest.raises(exc.ArgumentError) as caught:
        make(url)
    text = str(caught.value)
    assert text.startswith("poolproof_hold_timeout in the URL: nobody reads that")
    assert "?plugin=poolproof&poolproof_hold_timeout=..." in text
    assert "hold_timeout=... to create_engine" in text
    assert "secret" not in text


@pytest.mark.parametrize("pool", [sa.NullPool, sa.QueuePool])
def test_another_pool_that_was_chosen_has_no_use_for_them_and_that_is_said(
    caplog, pool
):
    engine = made("poolproof_hold_timeout=5", "poolproof_pool_size=2", poolclass=pool)
    assert type(engine.pool) is pool
    (line,) = caplog.messages
    assert line == (
        "poolproof: poolproof_hold_timeout, poolproof_pool_size in the URL of "
        f"postgresql+psycopg2://u@h/d: no effect, for this engine keeps its pool "
        f"({pool.__name__})"
    )


def test_an_async_engine_that_keeps_its_pool_has_none_either(caplog):
    with caplog.at_level(logging.WARNING, "poolproof"):
        engine = create_async_engine(
            "postgresql+asyncpg://u@h/d?plugin=poolproof&poolproof_hold_timeout=5",
            poolclass=AsyncAdaptedQueuePool,
        )
    assert not engine.url.query
    assert "keeps its pool (AsyncAdaptedQueuePool)" in caplog.messages[-1]


def test_they_count_for_every_engine_where_the_plugin_does():
    done = run_script(
        """
        import os
        os.environ["POOLPROOF"] = "1"
        import poolproof.auto
        from sqlalchemy import create_engine
        url = "postgresql+psycopg2://u@h/d?poolproof_hold_timeout=5"
        print(create_engine(url).pool.settings.hold_timeout)
        """
    )
    assert done.stdout == "5\n", done

"""An answer to nobody's question that is on its way while nobody looks.

It arrives after the look at the check-in and the look at the next checkout: no look can
see it, and a question at each checkout can. README and docs/knobs.md say so.
"""

from __future__ import annotations

import pytest
from sqlalchemy import exc, text

from plugins.harm import Proxy
from plugins.wire import answer


@pytest.fixture
def link(pg):
    made = Proxy((pg.host, pg.port))
    yield made
    made.close()


@pytest.fixture
def ask(make_engine, pg_url, driver, link):
    """Make the function that makes a request and returns its answer."""

    def made(pre_ping):
        url = pg_url(driver).set(port=link.port)
        engine = make_engine(url, pool_pre_ping=pre_ping, ping_idle_after=None)

        def request(words):
            with engine.connect() as connection:
                return connection.scalar(text("select :words"), {"words": words})

        return request

    return made


def test_a_question_at_each_checkout_keeps_it_from_every_request(ask, link):
    request = ask("always")
    assert request("before") == "before"
    link.inject(answer("stray"))
    assert [request(f"{n}") for n in range(5)] == [f"{n}" for n in range(5)]


@pytest.mark.parametrize("driver", ["psycopg2"])
def test_a_look_alone_does_not(ask, link):
    """The limit, as it is said; where this fails, say less."""
    request = ask(False)
    assert request("before") == "before"
    link.inject(answer("stray"))
    try:
        met = request("mine") != "mine"
    except exc.SQLAlchemyError:
        met = True
    assert met
    assert [request(f"{n}") for n in range(5)] == [f"{n}" for n in range(5)]

"""A mock in a driver's place, as applications' own tests have it: it is not a driver.

It has every method of every driver, and what they return means nothing.
"""

from __future__ import annotations

from unittest.mock import Mock, call

import pytest
from sqlalchemy import exc, text

import poolproof


@pytest.fixture
def driver():
    """Mock a driver's module; what it connects is mocked with it."""

    class Error(Exception):
        pass

    driver = Mock(Error=Error, paramstyle="pyformat", __version__="99.9.9")
    driver.connect().closed = 0  # SQLAlchemy looks at it
    return driver


@pytest.fixture
def engine(driver, make_engine):
    return make_engine("postgresql+psycopg2://db/app", module=driver, _initialize=False)


def test_it_is_asked_nothing_and_lent_again(make_pool):
    connections = [Mock(name="first"), Mock(name="second")]
    pool = make_pool(iter(connections).__next__)
    for _ in range(3):
        with pool.connect() as fairy:
            assert fairy.dbapi_connection is connections[0]
    assert connections[0].mock_calls == [call.rollback()] * 3


def test_nothing_is_discarded_on_it():
    connection = Mock()
    pool = poolproof.Pool(lambda: connection, reset_on_return="discard_all")
    pool.connect().close()
    assert connection.mock_calls == [call.rollback()]
    pool.dispose()


def test_its_error_costs_nothing(engine, driver):
    with engine.connect() as connection:
        driver.connect().cursor().execute.side_effect = driver.Error("refused")
        with pytest.raises(exc.DBAPIError):
            connection.execute(text("select 1"))
        assert not connection.invalidated
    assert engine.pool.checkedin() == 1

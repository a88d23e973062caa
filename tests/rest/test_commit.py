"""A COMMIT that is answered by something else is no success."""

from __future__ import annotations

import pytest
from sqlalchemy import event, exc, text

import poolproof
from plugins.wire import message

# What another process's statement in its transaction is answered with.
STRAY = message(b"C", b"INSERT 0 1\0") + message(b"Z", b"T")


@pytest.fixture
def engine(proxied, link):
    engine = proxied()
    engine.connect().close()
    strays = [STRAY]

    def precede(_):
        if strays:
            link().precede(strays.pop())

    event.listen(engine, "commit", precede)
    return engine


def test_commit_that_leaves_the_session_in_a_transaction_is_an_error(engine, table):
    insert = text(f"insert into {table} values (1)")
    with (
        pytest.raises(exc.DBAPIError, match="lost synchronization") as caught,
        engine.begin() as connection,
    ):
        connection.execute(insert)
    assert poolproof.classify(caught.value).outcome == "unknown"
    assert engine.pool.stats().discarded == {"corruption": 1}
    with engine.begin() as connection:
        assert connection.scalar(text("select 1")) == 1


@pytest.mark.parametrize("verify", [True, False])
def test_unit_is_asked_for_or_unknown(engine, table, observer, verify):
    def unit(connection):
        connection.execute(text(f"insert into {table} values (1)"))

    try:
        poolproof.run_transaction(engine, unit, verify_commit=verify)
    except poolproof.CommitOutcomeUnknown:
        assert not verify
    else:
        assert verify
    # Where it is unknown, the shut socket may have come before COMMIT was carried out.
    done = observer.value(f"select count(*) from {table}")
    assert done == 1 or (done == 0 and not verify)


def test_transaction_of_the_applications_own_is_left_alone(
    make_engine, pg_url, driver, table
):
    engine = make_engine(pg_url(driver), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("begin"))
        connection.commit()
        connection.execute(text("rollback"))

"""A COMMIT that is answered by something else is no success."""

from __future__ import annotations

import pytest
from sqlalchemy import event, exc, text

import poolproof
from plugins.wire import answer, message

# What another process's statement in its transaction is answered with.
STRAY = message(b"C", b"INSERT 0 1\0") + message(b"Z", b"T")


# One that was given outside of any, without rows and with some.
OUTSIDE = message(b"C", b"INSERT 0 1\0") + message(b"Z", b"I")
ROWS = answer("1")


@pytest.fixture
def stray():
    return STRAY


@pytest.fixture
def engine(proxied, link, stray):
    engine = proxied()
    engine.connect().close()
    strays = [stray]

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


@pytest.mark.parametrize("stray", [OUTSIDE, ROWS], ids=["no rows", "rows"])
def test_what_a_commit_sees_of_an_answer_given_outside_of_a_transaction(
    engine, table, driver, stray
):
    """As docs/knobs.md says of each driver; the next caller meets none of it."""
    error = None
    try:
        with engine.begin() as connection:
            connection.execute(text(f"insert into {table} values (1)"))
    except Exception as caught:
        error = caught
    sees_rows, sees_a_word = driver != "psycopg", driver == "pg8000"
    if sees_a_word or (sees_rows and stray is ROWS):
        assert poolproof.classify(error).outcome == "unknown"
    else:
        assert error is None
    for words in ("one", "two"):
        with engine.connect() as connection:
            asked = text("select :words").bindparams(words=words)
            assert connection.scalar(asked) == words

"""Answers that fit in all but one thing, which alone says that they are another's."""

from __future__ import annotations

import contextlib

import pytest

import poolproof.driver as dbapi
from plugins.forging import Forger, marks
from plugins.wire import message

CLOSED = message(b"3", b"")


@pytest.fixture
def forger(contrib_pg):
    made = Forger((contrib_pg.host, contrib_pg.port))
    yield made
    made.close()


@pytest.fixture
def forged(contrib_pg, forger):
    """Connect through the forger."""
    with contextlib.ExitStack() as stack:

        def connect(**keywords):
            opened = dbapi.connect(
                host="127.0.0.1",
                port=forger.port,
                user="postgres",
                sslmode="disable",
                prepare_threshold=None,
                **keywords,
            )
            stack.callback(opened.close)
            return opened

        yield connect


# --- whose answer it is ---------------------------------------------------------------


def once(forge):
    """Forge the first answer of those to come, and no other."""
    forgeries = [forge]

    def forge_first(request, answer):
        return forgeries.pop()(request, answer) if forgeries else None

    return forge_first


def stray(answer, ahead, behind):
    """Make of an answer another one of the same form: its value, and its marks."""
    inner = [one for one in answer[:-1] if one != CLOSED]
    assert sum(b"right" in one for one in inner) == 1
    wrong = [one.replace(b"right", b"wrong") for one in inner]
    return [CLOSED] * ahead + wrong + [CLOSED] * behind + answer[-1:]


@pytest.mark.parametrize(("more_ahead", "more_behind"), [(1, 0), (0, 1), (-1, 0)])
def test_an_answer_with_other_marks_is_an_error_at_that_request(
    forged, forger, more_ahead, more_behind
):
    connection = forged(autocommit=True)
    forger.forge = once(
        lambda request, answer: [
            stray(
                answer,
                marks(request)[0] + more_ahead,
                marks(request)[1] + more_behind,
            ),
            answer,
        ]
    )
    with pytest.raises(dbapi.Error, match="the server sent"):
        connection.execute("select %s::text", ["right"]).fetchone()
    assert connection.closed


def test_every_request_has_marks_and_other_ones_than_the_one_before(forged, forger):
    connection = forged(autocommit=True)
    seen = []
    forger.forge = lambda request, answer: seen.append(marks(request))
    for number in range(25):
        connection.execute("select %s::int", [number])
    assert all(ahead and behind for ahead, behind in seen)
    assert len(set(seen)) == 25


def test_without_marks_it_would_be_taken(forged, forger):
    """The control of the one before, and of `test_meddling`.

    The stray answer has the very marks that are due. So to this request they say
    nothing, as if there were none: its wrong value reaches the caller. If this fails,
    something else than marks keeps the answers of those tests apart.
    """
    connection = forged(autocommit=True)
    forger.forge = once(
        lambda request, answer: [stray(answer, *marks(request)), answer]
    )
    found = connection.execute("select %s::text", ["right"]).fetchone()
    assert found == ("wrong",)
    with pytest.raises(dbapi.Error, match="the server sent"):
        # The true answer is found ahead of the next.
        connection.execute("select %s::text", ["right"])


# --- a ROLLBACK that is not waited for ------------------------------------------------

COMMITTED = message(b"C", b"COMMIT\0")
REFUSED = message(b"E", b"SERROR\0VERROR\0CXX001\0Mno\0\0")
INSIDE = message(b"Z", b"T")
FAILED = message(b"Z", b"E")
ROW = message(b"T", b"\0\0") + message(b"D", b"\0\0") + message(b"C", b"SELECT 1\0")
FORGERIES = {
    "another statement's": lambda ahead, said, end: [*ahead, COMMITTED, end],
    "in a transaction": lambda ahead, said, end: [*ahead, said, INSIDE],
    "in a failed one": lambda ahead, said, end: [*ahead, said, FAILED],
    "refused": lambda ahead, said, end: [*ahead, REFUSED, end],
    "with a result": lambda ahead, said, end: [*ahead, ROW, end],
    "without its end": lambda ahead, said, end: [*ahead, said],
    "the end alone": lambda ahead, said, end: [*ahead, end],
    "a mark more": lambda ahead, said, end: [*ahead, CLOSED, said, end],
    "a mark less": lambda ahead, said, end: [*ahead[1:], said, end],
    "lost": lambda ahead, said, end: [],
    "twice": lambda ahead, said, end: [*ahead, said, end] * 2,
}


# What is not there at all is waited for, by what goes after it.
MISSING = {"without its end", "lost"}


@pytest.mark.parametrize(
    ("kind", "autocommit"),
    [
        pytest.param(kind, autocommit, id=f"{kind} {when}")
        for kind in FORGERIES
        for autocommit, when in ((False, "behind it"), (True, "after it"))
        if not (autocommit and kind in MISSING)
    ],
)
def test_a_rollback_that_is_owed_must_be_answered_as_such(
    forged, forger, looking, kind, autocommit
):
    """Whoever comes next is told, and nothing that it asks is done for good."""
    looking.rows("drop table if exists owed")
    looking.rows("create table owed (n int)")
    connection = forged(pipeline=True)
    connection.execute("insert into owed values (1)")
    forger.forge = once(
        lambda request, answer: [FORGERIES[kind](answer[:-2], *answer[-2:])]
    )
    connection.rollback()
    connection.autocommit = autocommit

    def insert():
        connection.execute("insert into owed values (2)")
        connection.commit()

    with pytest.raises(dbapi.Error) as caught:
        insert()
    assert "the server sent" in str(caught.value)
    assert connection.closed
    assert looking.value("select count(*) from owed where n = 1") == 0
    if not autocommit:
        assert looking.value("select count(*) from owed") == 0


def test_the_true_answer_is_none_of_these(forged, forger):
    """The control: what is passed on as it came."""
    connection = forged(pipeline=True)
    seen = []
    forger.forge = lambda request, answer: seen.append(answer[-2:]) or [answer]
    for number in range(3):
        found = connection.execute("select %s::int", [number]).fetchone()
        assert found == (number,)
        connection.rollback()
    connection.ping()
    rollbacks = [one for one in seen if one[0] == message(b"C", b"ROLLBACK\0")]
    assert len(rollbacks) == 3

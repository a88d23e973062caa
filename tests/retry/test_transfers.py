"""Money is conserved and each transfer done once, wherever the connection breaks."""

from __future__ import annotations

import random
import threading

import pytest
from sqlalchemy import event, text

import poolproof
from plugins.threads import eventually

QUICK = poolproof.Backoff(first=0.001, most=0.01)
BACKEND = text("select pg_backend_pid()")
STEPS = ("nowhere", "before", "statement", "end", "commit", "answer")


class Bank:
    """Two accounts, a journal, and a connection that breaks at a chosen step."""

    def __init__(self, engine, link, observer, name) -> None:
        self.engine = engine
        self.link = link
        self.observer = observer
        self.journal, self.account = f"{name}_journal", f"{name}_account"
        self.step = "nowhere"
        self.breakers: list[threading.Thread] = []
        observer.rows(f"create table {self.journal} (n integer)")
        observer.rows(f"create table {self.account} (id integer, balance integer)")
        observer.rows(f"insert into {self.account} values (1, 1000), (2, 0)")
        event.listen(engine, "commit", self.break_commit)

    def close(self) -> None:
        for breaker in self.breakers:
            breaker.join(10)
        self.observer.rows(f"drop table {self.journal}; drop table {self.account}")

    def reached(self, step) -> bool:
        """Tell whether the connection is to break here; it does so once."""
        if self.step != step:
            return False
        self.step = "nowhere"
        return True

    def terminate(self, connection) -> None:
        pid = connection.scalar(BACKEND)
        self.observer.terminate(pid)

    def transfer(self, connection, n) -> int:
        """Move 1 and write it down."""
        move = f"update {self.account} set balance = balance + :by where id = :id"
        connection.execute(text(move), {"by": -1, "id": 1})
        if self.reached("statement"):
            self.terminate(connection)
        connection.execute(text(move), {"by": 1, "id": 2})
        connection.execute(text(f"insert into {self.journal} values (:n)"), {"n": n})
        if self.reached("end"):
            self.terminate(connection)
        self.n = n
        return n

    def break_commit(self, _connection) -> None:
        """Lose the commit on its way, or the answer to it."""
        if self.reached("commit"):
            link = self.link()
            link.stall_questions()
            self.cut_when(link, lambda: True)
        elif self.reached("answer"):
            link = self.link()
            link.stall_answers(b"COMMIT")
            self.cut_when(link, lambda: self.count(self.n))

    def cut_when(self, link, is_time) -> None:
        def cut() -> None:
            eventually(is_time)
            link.cut()

        self.breakers.append(threading.Thread(target=cut))
        self.breakers[-1].start()

    def count(self, n) -> int:
        return self.observer.value(f"select count(*) from {self.journal} where n = {n}")

    def balances(self) -> list[int]:
        rows = self.observer.rows(f"select balance from {self.account} order by id")
        return [balance for (balance,) in rows]


@pytest.fixture
def bank(proxied, link, observer, table):
    made = Bank(proxied(), link, observer, table)
    yield made
    made.close()


def run(bank, attempted, transfers: int, **options) -> None:
    """Make transfers, each breaking at a step or not; hold the journal against them."""
    chance = random.Random(3)  # noqa: S311 - no secret
    unknown = []
    for n in range(transfers):
        step = chance.choice(STEPS)
        if step == "before":
            with bank.engine.connect() as connection:
                idle = connection.scalar(BACKEND)
            bank.observer.terminate(idle)
        else:
            bank.step = step
        done = len(attempted)
        told = outcome = None
        try:
            told = poolproof.run_transaction(
                bank.engine,
                lambda connection, n=n: bank.transfer(connection, n),
                backoff=QUICK,
                **options,
            )
        except poolproof.CommitOutcomeUnknown as error:
            outcome = error
        if outcome is None:
            assert told == n
            assert bank.count(n) == 1, (n, step, attempted[done:])
        else:
            assert step in {"end", "commit", "answer"}
            assert outcome.xid is None
            unknown.append(n)
            eventually(lambda n=n, step=step: bank.count(n) == (step == "answer"))
        assert bank.step == "nowhere"
    if options.get("verify_commit"):
        assert not unknown
    lost = sum(not bank.count(n) for n in unknown)
    moved = transfers - lost
    assert bank.balances() == [1000 - moved, moved]


@pytest.mark.parametrize("verify", [True, False], ids=["verified", "unverified"])
def test_each_transfer_is_done_once(bank, attempted, driver, verify):
    transfers = 80 if driver == "psycopg2" else 24
    run(bank, attempted, transfers, verify_commit=verify)
    assert len(attempted) > transfers


@pytest.mark.soak
@pytest.mark.parametrize("verify", [True, False], ids=["verified", "unverified"])
def test_each_of_five_hundred_transfers_is_done_once(bank, attempted, verify):
    run(bank, attempted, 500, verify_commit=verify)


def test_an_idempotent_unit_is_repeated_where_it_may_be_done(bank):
    bank.step = "answer"
    poolproof.run_transaction(
        bank.engine,
        lambda connection: bank.transfer(connection, 7),
        backoff=QUICK,
        idempotent=True,
    )
    assert bank.count(7) == 2  # and so it is not

"""Scopes: whose holds are whose, in threads, tasks and greenlets, and how many."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

import poolproof
from plugins.processes import run_script
from plugins.threads import Task
from poolproof.metrics.scope import current_scope


def held_in(pool):
    found = poolproof.snapshot(pool).hold_by_scope
    return {name: times.count for name, times in found.items()}


def test_holds_are_counted_in_the_scope_of_their_checkout(make_pool):
    pool = make_pool()
    with poolproof.scope("outer"):
        connection = pool.connect()
        with poolproof.scope("inner"):
            pool.connect().close()
        pool.connect().close()
    pool.connect().close()
    connection.close()  # outside: the checkout decides
    assert held_in(pool) == {"": 1, "outer": 2, "inner": 1}


def test_a_thread_has_scopes_of_its_own(make_pool):
    pool = make_pool()
    with poolproof.scope("here"):
        Task(lambda: pool.connect().close()).result()
    assert held_in(pool) == {"": 1}


def test_one_who_has_waited_is_counted_in_its_scope(make_pool):
    pool = make_pool(pool_size=1, max_overflow=0)
    first = pool.connect()

    def work():
        with poolproof.scope("waits"):
            pool.connect().close()

    task = Task(work)
    first.close()
    task.result()
    assert held_in(pool) == {"": 1, "waits": 1}


def test_a_function_and_a_coroutine_function_are_decorated(make_pool):
    @poolproof.scope("decorated")
    def work():
        """Doc."""
        return current_scope()

    @poolproof.scope("decorated too")
    async def work_async():
        await asyncio.sleep(0)
        return current_scope()

    assert work() == "decorated"
    assert work.__doc__ == "Doc."
    assert asyncio.run(work_async()) == "decorated too"
    assert current_scope() is None


def test_tasks_do_not_disturb_each_other():
    async def main():
        async def one(name):
            with poolproof.scope(name):
                await asyncio.sleep(0)
                return current_scope()

        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(main()) == ["a", "b"]


def test_one_object_may_be_entered_twice():
    named = poolproof.scope("again")
    with named, named:
        assert current_scope() == "again"
    assert current_scope() is None


def test_it_ends_when_its_block_raises():
    with pytest.raises(KeyError), poolproof.scope("fails"):
        raise KeyError
    assert current_scope() is None


def test_a_copied_context_keeps_it():
    with poolproof.scope("copied"):
        context = contextvars.copy_context()
    assert context.run(current_scope) == "copied"


BOUND = """
import sys
sys.path.insert(0, "tests")
from plugins.dbapi import SocketDBAPI
import poolproof
pool = poolproof.Pool(SocketDBAPI().connect)
for number in range(300):
    with poolproof.scope(f"name {number}"):
        pool.connect().close()
found = poolproof.snapshot(pool).hold_by_scope
print(len(found), found["other"].count, sum(t.count for t in found.values()))
pool.dispose()
"""


def test_at_most_200_names_are_told_apart():
    assert run_script(BOUND).stdout.split() == ["201", "100", "300"]


@pytest.mark.parametrize("wrong", [None, 1, b"bytes"])
def test_a_name_is_a_text(wrong):
    with pytest.raises(TypeError, match="a scope needs a name"):
        poolproof.scope(wrong)


@pytest.mark.parametrize("wrong", ["", "x" * 201])
def test_a_name_has_a_length(wrong):
    with pytest.raises(ValueError, match="1 to 200 characters"):
        poolproof.scope(wrong)


def test_a_generator_function_is_refused():
    def rows():
        yield 1

    with pytest.raises(TypeError, match="generator function"):
        poolproof.scope("lazy")(rows)


def test_what_says_the_scope_is_told_at_the_import():
    """A fork in the middle of telling would leave the child without."""
    done = run_script(
        """
        import poolproof
        from poolproof import _native
        print(_native.tell_scopes(lambda: 7))
        """
    )
    assert done.stdout == "False\n", done

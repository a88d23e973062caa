"""A process of its own for one side of a comparison, which measures when it is asked.

The interpreter adapts shared code to the classes that it has just seen. Two pools in
one process would slow each other down; an application has one.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Worker"]

# What a later worker must close: one that held these would never see its end.
_parents_ends: list[int] = []


class Worker:
    """A forked process that ends with this one, or by `close`.

    Args:
        prepare: Called in the process; returns what it can measure, by name.

    Attributes:
        names: What it can measure.
    """

    def __init__(
        self, prepare: Callable[[], Mapping[str, Callable[[], float]]]
    ) -> None:
        theirs, ours = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for end in (theirs[1], ours[0], *_parents_ends):
                os.close(end)
            _serve(prepare, theirs[0], ours[1])
        os.close(theirs[0])
        os.close(ours[1])
        _parents_ends.extend((theirs[1], ours[0]))
        self._asking = os.fdopen(theirs[1], "w", buffering=1)
        self._hearing = os.fdopen(ours[0])
        self.names = self._hearing.readline().split(",")[:-1]

    def measure(self, name: str) -> float:
        """Have the process measure something.

        Raises:
            ChildProcessError: It has ended; its traceback is on standard error.
        """
        print(name, file=self._asking)
        answer = self._hearing.readline()
        if not answer:
            raise ChildProcessError(f"the process that measures {name} has ended")
        return float(answer)

    def close(self) -> None:
        """End the process."""
        for end in (self._asking, self._hearing):
            _parents_ends.remove(end.fileno())
        self._asking.close()
        self._hearing.close()
        os.waitpid(self.pid, 0)


def _serve(
    prepare: Callable[[], Mapping[str, Callable[[], float]]], asked: int, answers: int
) -> None:
    try:
        variants = prepare()
        with os.fdopen(asked) as names, os.fdopen(answers, "w", buffering=1) as out:
            print(*variants, sep=",", end=",\n", file=out)
            for name in names:
                print(variants[name.strip()](), file=out)
    except BaseException:  # noqa: BLE001 - the end of the process tells the parent
        traceback.print_exc()
    finally:
        os._exit(0)

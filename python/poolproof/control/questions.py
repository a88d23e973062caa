"""Answers to the control plane, which asks how its next session is to be made.

Where functions make the parameters of a connection (a token of a cloud's, say), they
are called anew for each. The control plane calls nobody: it leaves a question, and the
notifier hears of it. The functions are called on a thread that answers and ends, one a
server at most: one that hangs holds up neither the notifier nor another server.
"""

from __future__ import annotations

import _thread
import threading
import weakref
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from poolproof import _native
from poolproof._cooperative import locks_are_replaced
from poolproof.control import notifier
from poolproof.drivers.server_params import UnknownParametersError

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolproof.drivers.conninfo import Conninfo

__all__ = ["Answers"]

NAME = "poolproof-parameters"


class Answers:
    """Answers the questions about one server, in one process."""

    def __init__(self, work_out: Callable[..., Conninfo], *of: Any, what: str) -> None:
        """Begin to listen.

        Args:
            work_out: Works out how to reach the server, now.
            *of: Its arguments. They are held weakly where that can be: who uses the
                server holds them.
            what: What they are called where they have gone.
        """
        self.questions = _native.Questions()
        self._work_out = work_out
        self._of = [_weakly(each) for each in of]
        self._what = what
        self._lock = threading.Lock()
        self._is_answering = False
        self.listen()

    def listen(self) -> None:
        """See to it that questions are heard of."""
        if not notifier.watch(self.questions.number, self):
            self.tell()  # those that wait are told so

    def tell(self) -> None:
        """Answer what is asked, on a thread of its own. For the notifier."""
        with self._lock:
            if self._is_answering:
                return  # it looks once more before it ends
            self._is_answering = True
        try:
            if locks_are_replaced():
                _thread.start_new_thread(self._answer_all, ())
            else:
                threading.Thread(
                    target=self._answer_all, name=NAME, daemon=True
                ).start()
        except RuntimeError:
            self._refuse_all("no thread is to be had that could ask for it")

    def _answer_all(self) -> None:
        while (question := self._next()) is not None:
            try:
                question.answer(self._work_out(*self._arguments()))
            except UnknownParametersError as error:
                question.fail(str(error), is_final=False)
            except exc.ArgumentError as error:
                question.fail(str(error), is_final=True)
            except BaseException as error:  # noqa: BLE001 - of any class, by a defect
                why = f"how to connect cannot be worked out: {type(error).__name__}"
                question.fail(why, is_final=False)
            del question

    def _arguments(self) -> list[Any]:
        arguments = [each() for each in self._of]
        if any(argument is None for argument in arguments):
            raise UnknownParametersError(f"{self._what} has gone")
        return arguments

    def _next(self) -> _native.Question | None:
        with self._lock:
            question = self.questions.take()
            self._is_answering = question is not None
            return question

    def _refuse_all(self, why: str) -> None:
        while (question := self._next()) is not None:
            question.fail(why, is_final=False)


def _weakly(thing: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing

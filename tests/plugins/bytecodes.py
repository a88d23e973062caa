"""An interruption before a chosen bytecode, as a signal may raise it."""

from __future__ import annotations

import sys
import threading


class Interruption:
    """Raises once, before the `at`-th bytecode of the traced files.

    Args:
        at: Which, from 1.
        traced: How the files' names end.
    """

    def __init__(self, at, traced):
        self.at = at
        self._traced = traced
        self.count = 0
        self.place = None
        self._caller = threading.get_ident()

    def run(self, story):
        """Run a story; the interruption, where it gets out, ends here."""
        self._start()
        try:
            story()
        except KeyboardInterrupt:
            pass
        finally:
            self._stop()

    def _meet(self, code):
        self.count += 1
        if self.count == self.at:
            self.place = f"{code.co_filename} in {code.co_name}"
            self._stop()
            raise KeyboardInterrupt

    if sys.version_info >= (3, 12):  # where settrace misses bytecodes
        _TOOL = 4

        def _start(self):
            monitoring = sys.monitoring
            monitoring.use_tool_id(self._TOOL, "poolproof tests")
            event = monitoring.events.INSTRUCTION
            monitoring.register_callback(self._TOOL, event, self._instruction)
            monitoring.set_events(self._TOOL, event)

        def _stop(self):
            if sys.monitoring.get_tool(self._TOOL) is not None:
                sys.monitoring.set_events(self._TOOL, 0)
                sys.monitoring.free_tool_id(self._TOOL)

        def _instruction(self, code, _offset):
            if threading.get_ident() != self._caller:  # the keeper's thread
                return None
            if not code.co_filename.endswith(self._traced):
                return sys.monitoring.DISABLE
            return self._meet(code)

    else:

        def _start(self):
            self._before = sys.gettrace()
            sys.settrace(self._call)

        def _stop(self):
            sys.settrace(self._before)

        def _call(self, frame, _event, _arg):
            if not frame.f_code.co_filename.endswith(self._traced):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return self._bytecode

        def _bytecode(self, frame, event, _arg):
            if event == "opcode":
                self._meet(frame.f_code)
            return self._bytecode

"""A proxy that knows where messages begin, and does one wrong thing to an answer.

It reads what a real PostgreSQL says, message by message, and at one of them injects,
drops, doubles, swaps or cuts. What is injected was said before on the same connection,
or looks as much like an answer as can be.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from plugins.wire import answer, message

__all__ = ["ASIDE", "Fault", "Meddler"]

# What may come at any time, and belongs to nobody.
ASIDE = b"NSA"
KINDS = ("inject", "drop", "double", "swap", "cut")
_END = ord("Z")
# A client has taken what came alone, as a rule; if not, it takes both at once.
_APART = 0.003
_LOOKALIKE = answer("wrong")
_REFUSAL = message(b"E", b"SERROR\0VERROR\0CXX001\0Mwrong\0\0") + message(b"Z", b"I")
_BOUND = message(b"1", b"") + message(b"2", b"")


@dataclass
class Fault:
    """What is to go wrong, and what came of it.

    Attributes:
        at: At which message behind the login, from 0.
        kind: One of `KINDS`.
        chance: Where the rest is drawn from.
        is_apart: Whether what is put in comes in a segment of its own.
        step: At which step of the client's it happened; None for not yet.
        is_harmless: Whether nothing is missing, and nothing there that has a meaning.
        is_hidden: Whether it is what no driver can see: the end of an answer inside of
            another, a refusal there, or two rows in each other's place.
        is_taken: Whether a wrong value came of it nevertheless.
        is_late: Whether it was found at the next request.
        shown: What it was, for a failure's message.
    """

    at: int
    kind: str
    chance: random.Random
    is_apart: bool
    step: int | None = None
    is_harmless: bool = False
    is_hidden: bool = False
    is_taken: bool = False
    is_late: bool = False
    shown: str = ""
    # Whether nothing more comes behind this answer.
    is_last: bool = field(default=False, repr=False)


class Meddler:
    """Listens, and forwards one connection at a time to a server.

    Args:
        address: Host and port of the server.

    Attributes:
        port: Where it listens.
        step: Which step the client is at; set by the client.
        messages: How many have come behind the login, on the last connection.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.step = 0
        self.messages = 0
        self._fault: Fault | None = None
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    def arm(self, fault: Fault | None) -> None:
        """Do this to the next connection."""
        self._fault = fault

    def close(self) -> None:
        """Listen no longer."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._serving.join(20)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._address)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                up = threading.Thread(target=_forward, args=(client, server))
                up.start()
                with contextlib.suppress(OSError):
                    _Answers(self, client, self._fault).forward(server)
                for each in (client, server):
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                up.join()
                client.close()
                server.close()


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Answers:
    """What one server says to one client."""

    def __init__(
        self, owner: Meddler, client: socket.socket, fault: Fault | None
    ) -> None:
        self._owner = owner
        self._client = client
        self._fault = fault
        self._is_in = False
        # The answers that have come, and what has of the present one.
        self._said: list[list[bytes]] = []
        self._saying: list[bytes] = []
        owner.messages = 0

    def forward(self, server: socket.socket) -> None:
        """Forward until one of both has enough."""
        unread = b""
        while data := server.recv(65536):
            unread += data
            messages = []
            while len(unread) >= 5:
                length = struct.unpack("!i", unread[1:5])[0] + 1
                if len(unread) < length:
                    break
                messages.append(unread[:length])
                unread = unread[length:]
            self._pass_on(messages)

    def _pass_on(self, messages: list[bytes]) -> None:
        out = b""
        while messages:
            one = messages.pop(0)
            if not self._is_in:
                self._is_in = one[0] == _END
                out += one
                continue
            fault = self._fault
            if fault is not None and self._owner.messages == fault.at:
                fault.step = self._owner.step
                out = self._harm(fault, out, one, messages)
            else:
                out += one
            self._owner.messages += 1
            self._saying.append(one)
            if one[0] == _END:
                self._said.append(self._saying)
                self._saying = []
                if fault is not None and fault.is_last:
                    self._client.sendall(out)
                    raise ConnectionAbortedError
        self._client.sendall(out)

    def _harm(
        self, fault: Fault, out: bytes, one: bytes, messages: list[bytes]
    ) -> bytes:
        """Return what is to be said in the place of *out* and *one*."""
        name = chr(one[0])
        fault.shown = f"{fault.kind} at {name!r}"
        fault.is_harmless = one[0] in ASIDE
        match fault.kind:
            case "drop":
                fault.is_last = not fault.is_harmless
                return out
            case "double":
                return self._put(fault, out + one, one)
            case "swap" if messages:
                after = messages.pop(0)
                if after[0] in ASIDE or one == after:
                    fault.is_harmless = True
                # Rows of one result have no order but the one in which they come.
                fault.is_hidden = one[0] == after[0] == ord("D")
                fault.shown += f" and {chr(after[0])!r}"
                messages.insert(0, one)
                return out + after
            case "swap":
                # Behind the end of an answer nothing comes with which it could.
                fault.is_last = True
                return out
            case "cut":
                self._client.sendall(out + one[: fault.chance.randrange(len(one))])
                fault.is_harmless = False
                raise ConnectionAbortedError
        stray = self._stray(fault)
        if name == "E" and stray[:1] == b"T" and len(_split(stray)) == 1:
            # A query may fail behind the columns of its result: it has failed.
            fault.is_harmless = True
        return self._put(fault, out, stray) + one

    def _put(self, fault: Fault, out: bytes, stray: bytes) -> bytes:
        if not fault.is_apart:
            return out + stray
        self._client.sendall(out)
        time.sleep(_APART)
        self._client.sendall(stray)
        time.sleep(_APART)
        return b""

    def _stray(self, fault: Fault) -> bytes:
        chance = fault.chance
        kind = chance.choice(["replay", "rest", "message", "lookalike", "garbage"])
        is_inside = bool(self._saying)
        if kind in {"replay", "rest"} and self._said:
            # As many of them as differ for certain: of simple queries eight.
            of_late = self._said[-7:]
            said = chance.choice(of_late)
            begin = chance.randrange(len(said)) if kind == "rest" else 0
            stray = said[begin:]
        elif kind == "message" and self._said:
            stray = [chance.choice(chance.choice(self._said))]
        elif kind == "garbage":
            fault.is_last = True
            fault.is_harmless = False
            fault.shown += " of garbage"
            return chance.randbytes(chance.randrange(1, 40))
        else:
            bound = chance.choice([b"", _BOUND])
            whole = chance.choice([bound + _LOOKALIKE, _REFUSAL])
            stray = _split(whole)
        kinds = bytes(each[0] for each in stray)
        fault.is_harmless = all(each in ASIDE for each in kinds)
        # Of what is inside of an answer and has an end of its own nothing tells but
        # how many marks there are behind it.
        fault.is_hidden = is_inside and fault.is_apart and kinds.endswith(b"Z")
        fault.shown += f" of {kinds!r} ({kind})"
        return b"".join(stray)


def _split(said: bytes) -> list[bytes]:
    messages = []
    while said:
        length = struct.unpack("!i", said[1:5])[0] + 1
        messages.append(said[:length])
        said = said[length:]
    return messages

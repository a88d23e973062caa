"""A server that says what it is told to, and records what it is sent.

It speaks PostgreSQL's protocol up to the first statement: TLS or not, every way of
asking who the client is. Whoever gets that far is answered with an error and cut off.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugins.certificates import Pair

PASSWORD = "s3cret of the lying server"  # noqa: S105
STATEMENT_REFUSED = "XX000"
_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104
_HANDSHAKE = b"\x16"
_ROUNDS = 1000


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How the server behaves.

    Attributes:
        tls: ``"on"``, ``"off"``, ``"error"`` (it sends an error in place of an answer),
            ``"garbage"`` or ``"cut"`` (in place of a handshake).
        auth: ``"trust"``, ``"password"``, ``"md5"``, ``"scram"``, ``"scram-plus"`` (it
            offers both, whether there is TLS or not), ``"gss"``, ``"sspi"``, or
            ``"unknown"``.
        rejects: What it lets nobody in by: ``"tls"``, ``"clear"``, nothing.
        highest: The highest version of TLS.
        agrees: Whether it agrees to a protocol over TLS (ALPN).
        wants: The authority of clients' certificates, if it asks for one.
    """

    tls: str = "on"
    auth: str = "password"
    rejects: str = ""
    highest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    agrees: bool = True
    wants: str = ""


@dataclass
class Met:
    """What one client has sent: kinds of passwords and whether under TLS; how far."""

    sent: list[tuple[str, bool]] = field(default_factory=list)
    entered: bool = False
    over_tls: bool = False
    certificate: bool = False


class LyingServer:
    """Listens on the loopback address.

    Args:
        pair: Its certificate and key.
        manners: How it behaves.
    """

    def __init__(self, pair: Pair, manners: Manners) -> None:
        self._pair = pair
        self._manners = manners
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_ciphers("DEFAULT:@SECLEVEL=0")
        self._context.load_cert_chain(pair.path, pair.key_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old versions, which are meant
            if manners.highest is ssl.TLSVersion.TLSv1_1:
                self._context.minimum_version = ssl.TLSVersion.TLSv1
            self._context.maximum_version = manners.highest
        if manners.agrees:
            self._context.set_alpn_protocols(["postgresql"])
        if manners.wants:
            self._context.load_verify_locations(manners.wants)
            self._context.verify_mode = ssl.CERT_OPTIONAL
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._served: dict[tuple[str, int], Met] = {}
        self._seen = threading.Condition()
        self._met: list[Met] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def take(self) -> list[Met]:
        """Return whom it has met since the last time, when it has done with all."""
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            name = last.getsockname()
            with self._seen:
                assert self._seen.wait_for(lambda: name in self._served, 20)
                # A client may still come, after whom nobody asks any more.
                threads, self._threads = self._threads, []
                met, self._met = self._met, []
                own, self._served = self._served[name], {}
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        return [each for each in met if each is not own]

    def close(self) -> None:
        """Listen no longer."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(20)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, name = self._listener.accept()
                met = Met()
                thread = threading.Thread(target=self._serve, args=(client, met))
                thread.daemon = True
                with self._seen:
                    self._met.append(met)
                    self._threads.append(thread)
                    thread.start()
                    self._served[name] = met
                    self._seen.notify_all()

    def _serve(self, client: socket.socket, met: Met) -> None:
        client.settimeout(20)
        talk = _Conversation(client, self._pair, self._manners, self._context, met)
        with contextlib.suppress(OSError, EOFError), contextlib.closing(talk), client:
            talk.hold()


class _Conversation:
    """One client, from its first byte to its first statement."""

    def __init__(
        self,
        client: socket.socket,
        pair: Pair,
        manners: Manners,
        context: ssl.SSLContext,
        met: Met,
    ) -> None:
        self._client: Any = client
        self._pair = pair
        self._manners = manners
        self._context = context
        self._met = met
        self._user = b""

    def hold(self) -> None:
        if not self._begin():
            return
        over = "tls" if self._met.over_tls else "clear"
        if self._manners.rejects == over:
            self._refuse("28000", "not this way")
            return
        if not getattr(self, "_" + self._manners.auth.replace("-", "_"))():
            return
        key = struct.pack("!ii", 1, 2)
        status = b"server_version\x0018.0\0"
        done = _message(b"R", struct.pack("!i", 0)) + _message(b"S", status)
        self._client.sendall(done + _message(b"K", key) + _message(b"Z", b"I"))
        kind, _ = self._message()
        self._met.entered = kind in b"PQ"
        self._refuse(STATEMENT_REFUSED, "no statement is carried out here")

    def close(self) -> None:
        self._client.close()

    def _begin(self) -> bool:
        """Read up to the startup message; say whether there was one."""
        first = self._client.recv(1, socket.MSG_PEEK)
        if first == _HANDSHAKE:
            self._encrypt()
        while True:
            (length,) = struct.unpack("!i", self._exactly(4))
            body = self._exactly(length - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code == _GSS_REQUEST:
                self._client.sendall(b"N")
                continue
            if code != _SSL_REQUEST:
                words = body[4:].split(b"\0")
                self._user = dict(zip(words[::2], words[1::2], strict=False))[b"user"]
                return True
            match self._manners.tls:
                case "off":
                    self._client.sendall(b"N")
                case "error":
                    self._refuse("57P01", "no answer but this")
                    return False
                case "garbage":
                    self._client.sendall(b"S" + b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return False
                case "cut":
                    self._client.sendall(b"S")
                    return False
                case _:
                    self._client.sendall(b"S")
                    self._encrypt()

    def _encrypt(self) -> None:
        self._client = self._context.wrap_socket(self._client, server_side=True)
        self._met.over_tls = True
        self._met.certificate = bool(self._client.getpeercert(binary_form=True))

    # --- ways of asking -------------------------------------------------------------

    def _trust(self) -> bool:
        return True

    def _password(self) -> bool:
        self._ask(3)
        return self._answer("clear") == PASSWORD.encode() + b"\0" or self._wrong()

    def _md5(self) -> bool:
        self._ask(5, b"salt")
        inner = _md5(PASSWORD.encode() + self._user)
        outer = b"md5" + _md5(inner + b"salt")
        return self._answer("md5") == outer + b"\0" or self._wrong()

    def _gss(self) -> bool:
        self._ask(7)
        self._answer("gss")
        return False

    def _sspi(self) -> bool:
        self._ask(9)
        self._answer("sspi")
        return False

    def _unknown(self) -> bool:
        self._ask(99)
        self._answer("unknown")
        return False

    def _scram(self) -> bool:
        return self._scrams(b"SCRAM-SHA-256\0")

    def _scram_plus(self) -> bool:
        return self._scrams(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0")

    def _scrams(self, mechanisms: bytes) -> bool:
        self._ask(10, mechanisms + b"\0")
        chosen, _, rest = self._answer("scram").partition(b"\0")
        first = rest[4:].decode()
        flag, _, bare = first.split(",", 2)
        nonce = dict(part.split("=", 1) for part in bare.split(","))["r"]
        nonce += base64.b64encode(os.urandom(12)).decode()
        salt = os.urandom(12)
        offer = f"r={nonce},s={base64.b64encode(salt).decode()},i={_ROUNDS}"
        self._ask(11, offer.encode())
        final = self._answer("scram").decode()
        unproved, _, _ = final.rpartition(",p=")
        bound = base64.b64decode(unproved.split(",")[0][2:])
        if chosen.endswith(b"-PLUS"):
            wanted = b"p=tls-server-end-point,," + (self._pair.binding or b"")
            if bound != wanted:
                return self._wrong()
        elif flag == "y" and b"PLUS" in mechanisms:
            return self._wrong()  # somebody between has taken it away
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, _ROUNDS)
        key = hmac.digest(salted, b"Server Key", "sha256")
        signed = f"{bare},{offer},{unproved}".encode()
        proof = base64.b64encode(hmac.digest(key, signed, "sha256"))
        self._ask(12, b"v=" + proof)
        return True

    # --- messages -------------------------------------------------------------------

    def _ask(self, code: int, body: bytes = b"") -> None:
        self._client.sendall(_message(b"R", struct.pack("!i", code) + body))

    def _answer(self, kind: str) -> bytes:
        letter, body = self._message()
        assert letter == b"p"
        self._met.sent.append((kind, self._met.over_tls))
        return body

    def _wrong(self) -> bool:
        self._refuse("28P01", "that is not the password")
        return False

    def _refuse(self, state: str, text: str) -> None:
        fields = f"SFATAL\0VFATAL\0C{state}\0M{text}\0\0"
        self._client.sendall(_message(b"E", fields.encode()))

    def _message(self) -> tuple[bytes, bytes]:
        letter = self._exactly(1)
        (length,) = struct.unpack("!i", self._exactly(4))
        return letter, self._exactly(length - 4)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._client.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def _message(letter: bytes, body: bytes) -> bytes:
    return letter + struct.pack("!i", len(body) + 4) + body

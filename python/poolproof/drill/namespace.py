"""A network namespace of our own, with a wire to it that can lose every packet.

Needs Linux, iproute2, and the right to make network namespaces. The namespace has no
name: it exists as long as the descriptor of this object, so that the kernel takes it
and the wire away whatever ends this process.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from poolproof.drill.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

_CLONE_NEWNET: Final = 0x40000000
_TRIES: Final = 5  # each with new names and addresses: another trial may have them
_NOBODY: Final = "02:00:00:00:00:fe"
_T = TypeVar("_T")


def lacks() -> str | None:
    """Say why no namespace can be made here; None when one can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if shutil.which("ip") is None:
        return "no program ip (Debian's package iproute2)"
    try:
        with Namespace():
            return None
    except SetupError as error:
        return str(error)


class Namespace:
    """Another host, one wire away; a context manager.

    Example:
        >>> with Namespace() as host:  # doctest: +SKIP
        ...     listener = host.listen()
        ...     host.drop()
    """

    def __init__(self) -> None:
        self._fd = -1
        self._wire = ""
        self._near = ""
        self.address = ""
        """The other host's address, as seen from here."""

    def open(self) -> Self:
        """Make the namespace and the wire.

        Raises:
            SetupError: The kernel, or the rights of this process, do not allow it.
        """
        libc = ctypes.CDLL(None, use_errno=True)

        def make() -> int:
            if libc.unshare(_CLONE_NEWNET):
                number = ctypes.get_errno()
                raise SetupError(f"no network namespace: {os.strerror(number)}")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self._fd = _in_a_thread(make)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise
        return self

    def _connect(self) -> None:
        """Lay the wire, with an address at both ends."""
        for tries_left in reversed(range(_TRIES)):
            number = random.SystemRandom().randrange(1 << 16)
            # Set aside for tests of networks (RFC 2544): nobody's real addresses.
            self._near = f"198.18.{number >> 8}.{number & 0xFC | 1}"
            self.address = f"198.18.{number >> 8}.{number & 0xFC | 2}"
            self._wire = f"drill{number:04x}"
            try:
                self._lay(f"{self._wire}b")
            except SetupError:
                if not tries_left:
                    raise
            else:
                return

    def _lay(self, far: str) -> None:
        """Make a pair of devices and bring both ends up."""
        _ip("link", "add", self._wire, "type", "veth", "peer", "name", far)
        try:
            namespace = f"/proc/{os.getpid()}/fd/{self._fd}"
            _ip("link", "set", far, "netns", namespace)
            _ip("addr", "add", f"{self._near}/30", "dev", self._wire)
            _ip("link", "set", self._wire, "up")
            self.inside(lambda: _ip("addr", "add", f"{self.address}/30", "dev", far))
            self.inside(lambda: _ip("link", "set", far, "up"))
        except SetupError:
            _ip("link", "del", self._wire)
            raise

    def inside(self, act: Callable[[], _T]) -> _T:
        """Call *act* in a thread that lives in the namespace; return its result."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter() -> _T:
            if libc.setns(self._fd, _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise SetupError(f"no way into the namespace: {os.strerror(number)}")
            return act()

        return _in_a_thread(enter)

    def listen(self) -> socket.socket:
        """Return a socket that listens over there; whoever gets it closes it."""
        return self.inside(lambda: socket.create_server((self.address, 0)))

    def drop(self) -> None:
        """Lose every packet, both ways, without a word to anybody."""
        _lose(self.address, self._wire)
        self.inside(lambda: _lose(self._near, f"{self._wire}b"))

    def deliver(self) -> None:
        """Deliver packets again."""
        _find(self.address, self._wire)
        self.inside(lambda: _find(self._near, f"{self._wire}b"))

    def close(self) -> None:
        """Take the wire and the namespace away; does nothing a second time."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        subprocess.run(  # noqa: S603 (our own arguments)
            ["ip", "link", "del", self._wire],  # noqa: S607 (from the path)
            capture_output=True,
            check=False,
        )
        os.close(fd)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _lose(address: str, device: str) -> None:
    """Send what is meant for an address to a station that is not there."""
    _ip(
        *("neigh", "replace", address, "lladdr", _NOBODY),
        *("dev", device, "nud", "permanent"),
    )


def _find(address: str, device: str) -> None:
    """Look the station of an address up anew."""
    _ip("neigh", "del", address, "dev", device)


def _ip(*words: str) -> None:
    """Run ``ip``.

    Raises:
        SetupError: It refuses; the message holds its words.
    """
    done = subprocess.run(  # noqa: S603 (our own arguments)
        ["ip", *words],  # noqa: S607 (from the path)
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words_of_ip = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise SetupError(f"ip {words[0]} {words[1]}: {words_of_ip}")


def _in_a_thread(act: Callable[[], _T]) -> _T:
    """Call *act* in a thread of its own, since a namespace is a thread's."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(act())
        except BaseException as error:  # noqa: BLE001 (raised again by the caller)
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]

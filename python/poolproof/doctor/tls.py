"""2xx: whether the way is encrypted, by whom that is checked, and for how long."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any, Final

from poolproof.doctor.finding import fine, found, skipped
from poolproof.doctor.parameters import Parameters
from poolproof.doctor.path_probe import path_of

if TYPE_CHECKING:
    from poolproof.doctor.finding import Finding
    from poolproof.doctor.subject import Subject

_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
_DIAL_S: Final = 0.6
_SOON_DAYS: Final = 21
_EXPIRED: Final = 10  # OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED


def encryption(subject: Subject) -> Finding:
    """PP207: is the way encrypted, and the server checked."""
    connection = subject.connection
    assert connection is not None  # noqa: S101 - the check needs one
    peer = connection.peer()
    if peer is None:
        return fine("a unix socket: it stays on this machine")
    if ipaddress.ip_address(peer[0]).is_loopback:
        return fine(f"{peer[0]} is this machine")
    parameters = Parameters(subject.engine)
    mode = _mode(parameters)
    evidence = [f"server at {peer[0]}:{peer[1]}", f"TLS: {mode or 'not known'}"]
    if not path_of(subject).is_pooled:
        [[is_on, version]] = connection.rows(
            "select ssl::text, coalesce(version, '') from pg_catalog.pg_stat_ssl"
            " where pid = pg_backend_pid()"
        )
        evidence.append(f"the server says: {version or 'no TLS'}")
        if is_on != "true":
            return found(
                "warning",
                "passwords, statements and rows cross the network in clear",
                "ssl = on at the server, and sslmode=verify-full with sslrootcert",
                evidence=evidence,
            )
    if not parameters.is_known:
        return skipped("the engine has a creator of its own: its sslmode is not known")
    if mode == "verify-full":
        return fine("encrypted, and the server's name is checked", evidence=evidence)
    return found(
        "warning",
        f"sslmode is {mode}: whoever stands in between may be the server, and read all",
        "sslmode=verify-full with sslrootcert; for pg8000 and asyncpg an "
        "ssl.SSLContext",
        evidence=evidence,
    )


def _mode(parameters: Parameters) -> str:
    """Say in libpq's words how an engine's connections are encrypted."""
    given: Any = None
    for name in ("sslmode", "ssl_context", "ssl"):
        given = given if given is not None else parameters.get(name)
    if isinstance(given, ssl.SSLContext):
        if given.verify_mode != ssl.CERT_REQUIRED:
            return "require"
        return "verify-full" if given.check_hostname else "verify-ca"
    if given is None or given is True:
        return "prefer" if given is None else "require"
    return str(given) if given else "disable"


def certificate(subject: Subject) -> Finding:
    """PP210: when does the server's certificate end."""
    connection = subject.connection
    assert connection is not None  # noqa: S101 - the check needs one
    peer = connection.peer()
    if peer is None:
        return fine("a unix socket has no certificate")
    der = _certificate_at(peer)
    if der is None:
        return fine("the server offers no TLS")
    end = _end_of(der, peer)
    now = dt.datetime.now(dt.timezone.utc)
    if end is None or end < now:
        return found(
            "error",
            "the server's certificate has expired"
            + (f" on {end:%d %B %Y}" if end else ""),
            "renew it; clients with sslmode=verify-full are refused until then",
        )
    left = (end - now).days
    if left < _SOON_DAYS:
        return found(
            "warning",
            f"the server's certificate ends in {left} day{'s' * (left != 1)}",
            "renew it: from then on clients with sslmode=verify-full are refused",
            evidence=[f"valid until {end:%Y-%m-%d %H:%M} UTC"],
        )
    return fine(f"the server's certificate is valid until {end:%d %B %Y}")


def _dial(peer: Any) -> socket.socket | None:
    """Connect and ask for TLS, as a driver does; None where it is not offered."""
    sock = socket.create_connection(peer[:2], timeout=_DIAL_S)
    try:
        sock.sendall(_SSL_REQUEST)
        if sock.recv(1) == b"S":
            return sock
    except OSError:
        sock.close()
        raise
    sock.close()
    return None


def _certificate_at(peer: Any) -> bytes | None:
    sock = _dial(peer)
    if sock is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(sock) as secure:
        return secure.getpeercert(binary_form=True)


def _end_of(der: bytes, peer: Any) -> dt.datetime | None:
    """Have OpenSSL read a certificate: it tells of one that it trusts.

    Args:
        der: The certificate, which is trusted for this one question.
        peer: Where its server is.

    Returns:
        Its end; None where OpenSSL says that it has passed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=der)
    sock = _dial(peer)
    if sock is None:
        return None
    try:
        with context.wrap_socket(sock) as secure:
            known = secure.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            return None
        raise
    seconds = ssl.cert_time_to_seconds(str(known["notAfter"]))
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc)

"""Certificates of every kind that a server may show; what trusts or revokes them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "db.test"
DAY = dt.timedelta(days=1)
_NOW = dt.datetime.now(dt.timezone.utc)
_PEM = serialization.Encoding.PEM
_PLAIN = serialization.NoEncryption()


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, and where the two are written."""

    certificate: x509.Certificate
    key: Any
    path: Path
    key_path: Path

    @cached_property
    def binding(self) -> bytes | None:
        """What a password is bound to; None where the signature has no hash."""
        algorithm = self.certificate.signature_hash_algorithm
        return algorithm and self.certificate.fingerprint(algorithm)


class Authority:
    """Issues certificates, and keeps all in one directory.

    Args:
        directory: Where its files are written.
        name: Its own.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pair = self._write(name, _built(name, self.key, ca=True), self.key)
        self.path = self.pair.path

    def issue(self, label: str, key: Any = None, **more: Any) -> Pair:
        """Issue a certificate for a server.

        Args:
            label: By which its files are named.
            key: Its key; None for a new one on P-256.
            more: What `_built` takes.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        more.setdefault("names", (NAME,))
        more.setdefault("addresses", ("127.0.0.1",))
        more.setdefault("common", NAME)
        signer = (self.pair.certificate.subject, self.key)
        return self._write(label, _built(key=key, signer=signer, **more), key)

    def sign_itself(self, label: str, **more: Any) -> Pair:
        """Make a certificate that nobody but itself vouches for."""
        key = ec.generate_private_key(ec.SECP256R1())
        names, addresses = (NAME,), ("127.0.0.1",)
        made = _built(NAME, key, names=names, addresses=addresses, **more)
        return self._write(label, made, key)

    def issue_version_1(self) -> Pair:
        """Make a server's certificate by the commands of PostgreSQL's manual."""
        asked = f"req -new -nodes -newkey rsa:2048 -subj /CN={NAME} -out v1.csr"
        signed = f"x509 -req -in v1.csr -days 2 -CA {self.path} -CAkey"
        signed += f" {self.pair.key_path} -CAcreateserial -out v1.crt"
        for words in (f"{asked} -keyout v1.key", signed):
            command = ["openssl", *words.split()]
            where = self.directory
            subprocess.run(
                command, cwd=where, check=True, capture_output=True, timeout=200
            )
        path = self.directory / "v1.crt"
        made = x509.load_pem_x509_certificate(path.read_bytes())
        return Pair(made, None, path, self.directory / "v1.key")

    def revoke(self, *pairs: Pair) -> Path:
        """Write a list of what it has revoked."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.pair.certificate.subject)
            .last_update(_NOW - DAY)
            .next_update(_NOW + 2 * DAY)
        )
        for pair in pairs:
            gone = x509.RevokedCertificateBuilder(
                pair.certificate.serial_number, _NOW - DAY
            )
            builder = builder.add_revoked_certificate(gone.build())
        signed = builder.sign(self.key, hashes.SHA256())
        path = self.directory / f"{self.name}.crl"
        path.write_bytes(signed.public_bytes(_PEM))
        return path

    def _write(self, label: str, made: x509.Certificate, key: Any) -> Pair:
        path = self.directory / f"{label}.crt"
        path.write_bytes(made.public_bytes(_PEM))
        key_path = self.directory / f"{label}.key"
        pkcs8 = serialization.PrivateFormat.PKCS8
        key_path.write_bytes(key.private_bytes(_PEM, pkcs8, _PLAIN))
        key_path.chmod(0o600)
        return Pair(made, key, path, key_path)


def _built(
    common: str,
    key: Any,
    *,
    signer: tuple[x509.Name, Any] | None = None,
    names: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
    begins: dt.timedelta = -DAY,
    ends: dt.timedelta = 2 * DAY,
    ca: bool = False,
    usage: x509.ObjectIdentifier | None = None,
    digest: hashes.HashAlgorithm | None = None,
    rsa_padding: padding.PSS | None = None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    issuer, signing = signer or (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW + begins)
        .not_valid_after(_NOW + ends)
    )
    if ca:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
    if alternatives:
        named = x509.SubjectAlternativeName(alternatives)
        builder = builder.add_extension(named, critical=False)
    if usage is not None:
        used = x509.ExtendedKeyUsage([usage])
        builder = builder.add_extension(used, critical=False)
    if isinstance(signing, ed25519.Ed25519PrivateKey):
        return builder.sign(signing, None)
    return builder.sign(signing, digest or hashes.SHA256(), rsa_padding=rsa_padding)


def every_kind(directory: Path) -> tuple[Authority, dict[str, Pair]]:
    """Make the authority that is trusted, and a server's certificate of every kind."""
    root = Authority(directory, "root")
    other = Authority(directory, "other")
    own = ed25519.Ed25519PrivateKey.generate()
    pairs = {
        "good": root.issue("good"),
        "wrong host": root.issue("wrong-host", names=("x.test",), addresses=()),
        "wrong authority": other.issue("wrong-authority"),
        "self-signed": root.sign_itself("self-signed"),
        "expired": root.issue("expired", begins=-3 * DAY, ends=-DAY),
        "future": root.issue("future", begins=DAY),
        "revoked": root.issue("revoked"),
        "version 1": root.issue_version_1(),
        "common name alone": root.issue("cn", names=(), addresses=()),
        "another common name": root.issue("cn-other", common="x.test"),
        "common name hidden": root.issue("cn-hidden", names=("x.test",)),
        "wildcard": root.issue("wildcard", names=("*.test",)),
        "wildcard of another level": root.issue("wild", names=("*.db.test",)),
        "address as name": root.issue("text", names=("127.0.0.1",), addresses=()),
        "P-521": root.issue("p521", ec.generate_private_key(ec.SECP521R1())),
        "SHA-512": root.issue("sha512", digest=hashes.SHA512()),
        "Ed25519": root.issue("ed25519", own),
        "signed by Ed25519": _by_ed25519(root),
        "signed by RSA-PSS": _by_rsa_pss(root, hashes.SHA256()),
        "signed by RSA-PSS and SHA-512": _by_rsa_pss(root, hashes.SHA512()),
        "RSA": root.issue("rsa", _rsa_key()),
        "RSA, too short": root.issue("short", _short()),
        "for clients": root.issue("clients", usage=ExtendedKeyUsageOID.CLIENT_AUTH),
    }
    root.revoke(pairs["revoked"])
    return root, pairs


def _by_ed25519(root: Authority) -> Pair:
    key = ed25519.Ed25519PrivateKey.generate()
    made = _built(NAME, key, names=(NAME,), addresses=("127.0.0.1",))
    return root._write("by-ed25519", made, key)


def _by_rsa_pss(root: Authority, digest: hashes.HashAlgorithm) -> Pair:
    key = _rsa_key()
    kind = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
    made = _built(NAME, key, names=(NAME,), digest=digest, rsa_padding=kind)
    return root._write(f"by-rsa-pss-{digest.name}", made, key)


@cache  # it costs some tenths of a second, and none asks for another's
def _rsa_key() -> Any:
    return rsa.generate_private_key(65537, 2048)


def _short() -> Any:
    return rsa.generate_private_key(65537, 1024)  # noqa: S505

"""A real PostgreSQL with a rule for each way of letting somebody in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg

from plugins.cluster import Cluster
from plugins.debian_server import ROOT
from plugins.server import running, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugins.certificates import Authority

RULES = """
local   all all                trust
hostnossl all in_clear 127.0.0.1/32 trust
hostssl all in_tls 127.0.0.1/32 trust
hostssl all by_cert 127.0.0.1/32 cert
host all by_password 127.0.0.1/32 password
host all by_md5 127.0.0.1/32 md5
host all by_scram 127.0.0.1/32 scram-sha-256
hostssl all by_scram_tls 127.0.0.1/32 scram-sha-256
host all rotating 127.0.0.1/32 scram-sha-256
host all postgres 127.0.0.1/32 trust
"""
ROLES = re.findall(r"all (in_\w+|by_\w+)", RULES)
SECRET = "p\u00e4ss w\\rd'"  # noqa: S105
# Whose password changes.
ROTATING = "rotating"


def started(root: Authority) -> Iterator[Cluster]:
    """Run Debian's PostgreSQL with these rules."""
    found = sorted(ROOT.glob("*/bin/initdb"))
    if not found:
        unavailable("no PostgreSQL with TLS: install Debian's package 'postgresql'")
    cluster = Cluster(found[-1].parent)
    pair = root.issue("real")
    rules = cluster.home / "rules"
    rules.write_text(RULES)
    copies = {}
    for name, source in (("crt", pair.path), ("key", pair.key_path), ("ca", root.path)):
        copies[name] = cluster.home / f"real.{name}"
        copies[name].write_bytes(source.read_bytes())
        cluster.own(copies[name])
    cluster.own(rules)
    cluster.settings |= {
        "hba_file": str(rules),
        "ssl": "on",
        "ssl_cert_file": str(copies["crt"]),
        "ssl_key_file": str(copies["key"]),
        "ssl_ca_file": str(copies["ca"]),
    }
    for server in running(cluster):
        with asked_by_root(server) as session:
            for role in (*ROLES, ROTATING):
                way = "md5" if role == "by_md5" else "scram-sha-256"
                session.execute(f"set password_encryption = '{way}'")
                session.execute(
                    psycopg.sql.SQL(
                        "create role {} superuser login password {}"
                    ).format(psycopg.sql.Identifier(role), SECRET)
                )
        yield server


def asked_by_root(cluster: Cluster) -> psycopg.Connection:
    where = {"host": str(cluster.home), "port": cluster.port}
    return psycopg.connect(user="postgres", dbname="postgres", autocommit=True, **where)


def cut_off(cluster: Cluster, role: str) -> None:
    """End the sessions of a role."""
    with asked_by_root(cluster) as session:
        session.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s",
            [role],
        )

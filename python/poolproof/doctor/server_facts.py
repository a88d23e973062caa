"""What a server says of itself and of its sessions, asked once for all checks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from poolproof.doctor.connection import ReadOnlyConnection

__all__ = ["Activity", "ServerFacts", "ask"]

_SETTINGS: Final = (
    *("max_connections", "superuser_reserved_connections", "reserved_connections"),
    *("idle_session_timeout", "idle_in_transaction_session_timeout"),
    *("transaction_timeout", "statement_timeout", "client_connection_check_interval"),
    *("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"),
    *("default_transaction_read_only", "server_version_num", "server_version"),
    *("ssl", "cluster_name"),
)
_NAMES: Final = ", ".join(f"'{name}'" for name in _SETTINGS)
# One round trip; each row is a kind, a name, and a value as text. Not `setting`, which
# is what this very transaction has; but of keep-alives only that is the system's.
_QUESTION: Final = f"""
select 'setting', name::text,
       case when left(name, 4) = 'tcp_' then setting else reset_val end
  from pg_catalog.pg_settings
 where name in ({_NAMES})
union all
select 'source', name::text, source from pg_catalog.pg_settings
 where name in ({_NAMES})
union all
select 'role', rolname::text, rolconnlimit::text from pg_catalog.pg_roles
 where rolname = current_user
union all
select 'database', datname::text, datconnlimit::text from pg_catalog.pg_database
 where datname = current_database()
union all
select 'member', rolname::text, pg_has_role(current_user, oid, 'usage')::text
  from pg_catalog.pg_roles
 where rolname in ('pg_read_all_stats', 'pg_use_reserved_connections')
union all select 'is', 'superuser', rolsuper::text from pg_catalog.pg_roles
 where rolname = current_user
union all select 'is', 'in_recovery', pg_is_in_recovery()::text
union all select 'is', 'client_address', host(inet_client_addr())
union all select 'is', 'client_port', inet_client_port()::text
union all select 'is', 'server_address', host(inet_server_addr())
union all select 'is', 'server_port', inet_server_port()::text
union all select 'is', 'postmaster_began', pg_postmaster_start_time()::text
union all select 'is', 'backend_pid', pg_backend_pid()::text
union all select 'is', 'lease_table', to_regclass('poolproof_lease')::text
"""  # noqa: S608 - the names are our own
_ACTIVITY: Final = """
select pid::text, coalesce(application_name, ''), coalesce(usesysid::text, ''),
       coalesce(usesysid = (select oid from pg_catalog.pg_roles
                             where rolname = current_user), false)::text,
       coalesce(datid = (select oid from pg_catalog.pg_database
                          where datname = current_database()), false)::text,
       coalesce(state, ''), coalesce(host(client_addr), ''),
       coalesce(client_port, -1)::text,
       coalesce(extract(epoch from clock_timestamp() - state_change), 0)::text,
       coalesce(extract(epoch from clock_timestamp() - backend_start), 0)::text,
       (backend_type is null)::text
  from pg_catalog.pg_stat_activity
 where usesysid is not null and coalesce(backend_type, 'client backend')
       = 'client backend'
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One session of the server.

    Attributes:
        pid: Its backend's process.
        application: Its application_name.
        is_ours: Whether it has the role that the doctor has.
        is_here: Whether it is in the database that the doctor is in.
        state: ``"idle"`` and so on; empty where that is hidden.
        address: Its client's; empty over a unix socket, or where that is hidden.
        port: Its client's; -1 over a unix socket, or where that is hidden.
        for_s: How long it has been in its state.
        age_s: How old it is.
        is_hidden: Whether the server shows no more of it than that it is there.
    """

    pid: int
    application: str
    is_ours: bool
    is_here: bool
    state: str
    address: str
    port: int
    for_s: float
    age_s: float
    is_hidden: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What was asked.

    Attributes:
        settings: The settings that the checks look at, as this session has them.
        sources: Where each is set.
        role: The role's name.
        role_limit: Its CONNECTION LIMIT; -1 is none.
        database: The database's name.
        database_limit: Its CONNECTION LIMIT; -1 is none.
        memberships: Predefined roles, and whether the role has them.
        facts: What else there is, as text; without an entry where it is null.
        activity: The server's sessions but for the doctor's own.
        activity_error: Why they cannot be seen; empty where they can.
    """

    settings: dict[str, str]
    sources: dict[str, str]
    role: str
    role_limit: int
    database: str
    database_limit: int
    memberships: dict[str, bool]
    facts: dict[str, str]
    activity: tuple[Activity, ...]
    activity_error: str

    def number(self, setting: str) -> int | None:
        """Return a setting that is a whole number; None where there is no such one.

        Args:
            setting: Its name. Lengths of time are in the setting's own unit.
        """
        value = self.settings.get(setting, "")
        return int(value) if value.lstrip("-").isdigit() else None

    @property
    def is_superuser(self) -> bool:
        """Whether the role is a superuser."""
        return self.facts.get("superuser") == "true"

    @property
    def version(self) -> int:
        """The major version; 0 where it is not known."""
        return (self.number("server_version_num") or 0) // 10_000


def ask(connection: ReadOnlyConnection) -> ServerFacts:
    """Ask a server.

    Args:
        connection: One that is open.

    Raises:
        Exception: Whatever the driver raises.
    """
    kinds: dict[str, dict[str, str]] = {}
    for kind, name, value in connection.rows(_QUESTION, 1.2):
        if value is not None:
            kinds.setdefault(kind, {})[name] = value
    [(role, role_limit)] = kinds.get("role", {"": "-1"}).items()
    [(database, database_limit)] = kinds.get("database", {"": "-1"}).items()
    activity: tuple[Activity, ...] = ()
    activity_error = ""
    own = kinds.get("is", {}).get("backend_pid")
    try:
        rows = connection.rows(_ACTIVITY, 0.8)
    except Exception as error:  # noqa: BLE001 - a revoked right, a time-out
        activity_error = str(error).strip().partition("\n")[0]
    else:
        activity = tuple(_session(row) for row in rows if row[0] != own)
    return ServerFacts(
        settings=kinds.get("setting", {}),
        sources=kinds.get("source", {}),
        role=role,
        role_limit=int(role_limit),
        database=database,
        database_limit=int(database_limit),
        memberships={
            name: value == "true" for name, value in kinds.get("member", {}).items()
        },
        facts=kinds.get("is", {}),
        activity=activity,
        activity_error=activity_error,
    )


def _session(row: tuple[str, ...]) -> Activity:
    (
        pid,
        application,
        _,
        is_ours,
        is_here,
        state,
        address,
        port,
        for_s,
        age_s,
        hidden,
    ) = row
    return Activity(
        pid=int(pid),
        application=application,
        is_ours=is_ours == "true",
        is_here=is_here == "true",
        state=state,
        address=address,
        port=int(port),
        for_s=float(for_s),
        age_s=float(age_s),
        is_hidden=hidden == "true",
    )

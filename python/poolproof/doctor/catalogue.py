"""Every check with its words: docs/doctor/ is made of this.

Long, because it is one table: a row a check.
"""

from __future__ import annotations

from typing import Final

from poolproof.doctor import (
    application,
    greenlets,
    live,
    path,
    runtime,
    server,
    tls,
)
from poolproof.doctor.check import Check

__all__ = ["CHECKS"]

_POOLED: Final = (
    "Behind a pooler the server's limits hold for the pooler's connections, not for "
    "the application's."
)

_SERVER: Final = (
    Check(
        code="PP101",
        name="slots",
        worst="error",
        looks="max_connections less both reserves, the CONNECTION LIMIT of the role "
        "and of the database, and the sessions of others, against machines × workers × "
        "what the pools of one process may open (and two connections of "
        "`end_stranded_backends`); `host_budget` bounds a machine. The threads of a "
        "process share its pool and do not count, but where each has a connection of "
        "its own (`NullPool`).",
        why="Under load, which is when it matters, connecting fails with 53300.",
        fix="Lower `pool_size` and `max_overflow`, or put a pooler in between. Say how "
        "it is run with `--workers`, `--threads` and `--fleet`; without them one "
        "process is counted.",
        problems="Of a URL the pool is not known: QueuePool's defaults are taken "
        "unless `--pool-size` and `--max-overflow` say otherwise. Sessions of others "
        "are those whose application_name is not the URL's, or where it has none, "
        "those of another role or database. " + _POOLED,
        needs="server",
        run=server.slots,
    ),
    Check(
        code="PP102",
        name="idle sessions",
        worst="warning",
        looks="idle_session_timeout, as this role has it, against `max_idle` and "
        "`min_idle`, or against what the pool class does at a checkout.",
        why="The server closes connections that rest in the pool. A pool that does not "
        "look hands them out, and the request fails.",
        fix="`poolproof.Pool` looks at each checkout; `max_idle` below the time-out "
        "spares it the reconnecting.",
        problems="A time-out that is set for another role, or by a connect listener of "
        "the application, is not seen.",
        needs="server",
        run=server.idle_session,
    ),
    Check(
        code="PP103",
        name="idle transactions",
        worst="note",
        looks="idle_in_transaction_session_timeout and `hold_timeout`.",
        why="A caller that waits for something else in the middle of a transaction "
        "keeps a connection, its locks, and what VACUUM may not remove.",
        fix="`alter role app set idle_in_transaction_session_timeout = '60s'`, or "
        "`hold_timeout` of the pool, which also ends a caller that is busy.",
        problems="What a pooler ends (idle_transaction_timeout) is not seen here.",
        needs="server",
        run=server.idle_in_transaction,
    ),
    Check(
        code="PP104",
        name="transaction time-out",
        worst="warning",
        looks="transaction_timeout (PostgreSQL 17) against `--timeout` and "
        "`hold_timeout`.",
        why="The server ends transactions that were meant to last, with 25P04, and the "
        "connection with them.",
        fix="Let the shortest bound be the one whose error says most: `hold_timeout`.",
        problems="Time-outs of blocks (`poolproof.deadline`) are not known.",
        needs="server",
        run=server.transaction_time,
    ),
    Check(
        code="PP105",
        name="statement time-out",
        worst="warning",
        looks="statement_timeout, as this role has it, against `--timeout` and "
        "`hold_timeout`, and the driver.",
        why="A statement that waits for a lock waits for ever; a soft time limit does "
        "not reach a thread inside psycopg2.",
        fix="`alter role app set statement_timeout = '30s'`, below the time-out of "
        "requests.",
        problems="One that is set by a connect listener, or for each statement, is not "
        "seen.",
        needs="server",
        run=server.statement_time,
    ),
    Check(
        code="PP106",
        name="stranded backends",
        worst="note",
        looks="client_connection_check_interval (PostgreSQL 14), and "
        "`end_stranded_backends`.",
        why="The backend of a process that was killed runs its statement to the end, "
        "and keeps its locks: the next worker waits for them.",
        fix="Either of the two.",
        problems="Through a pooler the server's client is the pooler, which goes on "
        "living.",
        needs="server",
        run=server.connection_check,
    ),
    Check(
        code="PP107",
        name="server's keep-alives",
        worst="note",
        looks="tcp_keepalives_idle, _interval and _count, as the server has them on "
        "this connection.",
        why="Where a client's machine has gone without a word, its session stays, with "
        "its slot and its locks: by the system's default for two hours.",
        fix="Set the three on the server. The pool's own side is its `keep_alive`.",
        problems="tcp_user_timeout may end it sooner.",
        needs="server",
        run=server.server_keep_alives,
    ),
    Check(
        code="PP108",
        name="writes",
        worst="warning",
        looks="pg_is_in_recovery(), and default_transaction_read_only of this role.",
        why="Every write fails with 25006. After a failover a pool may be stuck on the "
        "old primary.",
        fix="The primary's address, or several hosts with "
        "`target_session_attrs=read-write`.",
        problems="Where reading is all that is meant, ignore it: `--ignore PP108`.",
        needs="server",
        run=server.may_write,
    ),
    Check(
        code="PP109",
        name="server's version",
        worst="warning",
        looks="server_version against the last day of each major version.",
        why="Holes are not mended any more.",
        fix="Move to a version that is.",
        problems="The days are those that were known when this was released.",
        needs="server",
        run=server.version,
    ),
    Check(
        code="PP110",
        name="hidden sessions",
        worst="note",
        looks="Which rows of pg_stat_activity show this role only a process id.",
        why="Who holds connections and locks cannot be seen by those who have to find "
        "out.",
        fix="`grant pg_read_all_stats to app`.",
        problems="A pooler hides its clients behind its own sessions.",
        needs="server",
        run=server.hidden_sessions,
    ),
)

_CONSOLE: Final = (
    "Only PgBouncer's console is asked, and only where it lets the user in "
    "(`stats_users` or `admin_users`); what it hides is skipped."
)

_PATH: Final = (
    Check(
        code="PP201",
        name="pooler",
        worst="note",
        looks="Whether the backend is the one that the driver was told of at "
        "connecting (poolers make that number up), whether the server sees our own "
        "port, what PgBouncer reports of itself, and what the address is called.",
        why="Behind a pooler a pooled connection is not a session: what a session has, "
        "and what limits it, is the pooler's.",
        fix="Nothing by itself: the other checks say what follows from it.",
        problems="A pooler in session mode that hands the server's own number on is "
        "taken for a proxy; so is a network that translates ports (NAT, a container's "
        "published port). PgBouncer reports itself from 1.26 on.",
        needs="connection",
        run=path.pooler,
        seconds=2.6,
    ),
    Check(
        code="PP202",
        name="sessions through it",
        worst="error",
        looks="The pooler's mode: as it reports it, as its console says, or by trying "
        "(three clients; does the first one's backend change?). Then the "
        "application's sources for advisory locks, LISTEN, SET and temporary tables, "
        "and the driver's prepared statements.",
        why="In transaction mode each transaction may have another session: a "
        "session's advisory lock has two holders, a prepared statement is another "
        "client's.",
        fix="Locks of transactions, SET LOCAL, `poolproof.Lease`; `prepare_threshold` "
        "None for psycopg, `statement_cache_size` 0 for asyncpg.",
        problems="Session mode is inferred from three rounds without a change. Sources "
        "are searched as text, those of the application alone, and only those that "
        "its import loads.",
        needs="connection",
        run=path.session_features,
    ),
    Check(
        code="PP203",
        name="pooler's time-outs",
        worst="warning",
        looks="client_idle_timeout and query_wait_timeout of PgBouncer, against "
        "`max_idle` and `--timeout`.",
        why="A pooler that closes idle clients breaks a pool that does not look.",
        fix="`max_idle` below it, or `client_idle_timeout = 0`.",
        problems=_CONSOLE,
        needs="connection",
        run=path.pooler_time,
    ),
    Check(
        code="PP204",
        name="pooler's version",
        worst="warning",
        looks="PgBouncer's version, as it reports it or its console says, against the "
        "advisories that were known when this was released.",
        why="Some let a client be another.",
        fix="A newer version.",
        problems="Distributions mend old versions without a new number. " + _CONSOLE,
        needs="connection",
        run=path.pooler_version,
    ),
    Check(
        code="PP205",
        name="pools in series",
        worst="error",
        looks="max_client_conn and the database's pool_size of PgBouncer, against "
        "machines × workers × what the pools of one process may open.",
        why="A client too many is refused; in session mode one that holds a session at "
        "rest keeps it from the others.",
        fix="Raise max_client_conn, lower the pools, or transaction mode.",
        problems="Of several PgBouncers side by side one is seen. " + _CONSOLE,
        needs="connection",
        run=path.pools_in_series,
    ),
    Check(
        code="PP206",
        name="latency",
        worst="note",
        looks="200 times the smallest question in one transaction (fewer where 0.6 s "
        "are not enough), and three fresh connections.",
        why="What each statement of a request costs at least; and what a connection "
        "costs that is not kept.",
        fix="Fewer statements, a nearer server; a pool that keeps connections.",
        problems="One moment on one machine.",
        needs="connection",
        run=path.latency,
        seconds=2.8,
    ),
    Check(
        code="PP207",
        name="encryption",
        worst="warning",
        looks="Whether the server has TLS on this connection (pg_stat_ssl), and "
        "sslmode, unless it is on this machine.",
        why="In clear, everybody on the way reads the password; without verify-full, "
        "everybody on the way can be the server.",
        fix="`sslmode=verify-full` with `sslrootcert`.",
        problems="Through a pooler the server's side is not looked at. A tunnel or a "
        "private network may be enough: `--ignore PP207`.",
        needs="connection",
        run=tls.encryption,
    ),
    Check(
        code="PP208",
        name="connecting",
        worst="warning",
        looks="How many addresses the hosts have, times the driver's connect time-out.",
        why="libpq's connect_timeout is for each address; while it lasts, so does the "
        "checkout.",
        fix="A shorter connect_timeout; `poolproof.Pool` bounds connecting as a whole.",
        problems="What the resolver takes is not bounded by any of them.",
        needs="nothing",
        run=path.addresses,
    ),
    Check(
        code="PP209",
        name="replicas",
        worst="warning",
        looks="Several hosts, and target_session_attrs.",
        why="The first that answers may be a standby: every write fails with 25006.",
        fix="`target_session_attrs=read-write`.",
        problems="A name that stands for several servers is one host here.",
        needs="nothing",
        run=path.replicas,
    ),
    Check(
        code="PP210",
        name="certificate",
        worst="error",
        looks="The server's certificate, over two handshakes of its own.",
        why="When it has ended, clients that check it are refused, all at once.",
        fix="Renew it.",
        problems="A certificate of an authority between may end sooner. The server "
        "logs two connections that ended after the handshake.",
        needs="connection",
        run=tls.certificate,
        seconds=2.6,
    ),
)

_TEXT: Final = (
    "Sources are read, not run: a hook that is registered in another way is not seen, "
    "nor one in a package, nor one in a file that the import does not load."
)

_APPLICATION: Final = (
    Check(
        code="PP301",
        name="pool class",
        worst="error",
        looks="The class of the engine's pool, and whether its processes are forked "
        "(`--preload`, `--worker-class prefork`).",
        why="QueuePool shares connections over a fork; StaticPool shares one among "
        "threads; NullPool connects each time, without bound.",
        fix="`poolclass=poolproof.Pool`.",
        problems="NullPool before a pooler on the same machine is a choice.",
        needs="application",
        run=application.pool_class,
    ),
    Check(
        code="PP302",
        name="connected at import",
        worst="error",
        looks="Whether the pools of this process have connections after the module was "
        "imported.",
        why="With `preload_app`, or in Celery's parent, they are inherited: two "
        "processes drive one backend, and read each other's answers.",
        fix="No query at import, or `poolproof.Pool`, which makes them dead in a "
        "child.",
        problems="A connection that was opened and closed again is not seen, nor one "
        "that is opened later and before the fork.",
        needs="application",
        run=application.connected_before_fork,
    ),
    Check(
        code="PP303",
        name="dispose in a hook",
        worst="error",
        looks="`dispose()` without `close=False` in what runs in a child: `post_fork`, "
        "`worker_process_init`, `postfork`, `os.register_at_fork`.",
        why="It says goodbye on the parent's sockets.",
        fix="Take it out; with `poolproof.Pool` nothing is needed.",
        problems=_TEXT,
        needs="application",
        run=application.disposals,
        seconds=1.5,
    ),
    Check(
        code="PP304",
        name="idle handlers",
        worst="warning",
        looks="Listeners of handle_error that set `invalidate_pool_on_disconnect` and "
        "never `is_disconnect`, by their bytecode.",
        why="That alone does nothing: the broken connection stays in the pool.",
        fix="`poolproof.guard(engine)`, or `poolproof.Pool`.",
        problems="A function that calls another which sets it is not seen.",
        needs="application",
        run=application.handlers,
    ),
    Check(
        code="PP305",
        name="greenlets",
        worst="error",
        looks="Whether gevent or eventlet has replaced locks, against `--worker-class` "
        "and `--preload`; whether scoped sessions are older than that; whether "
        "psycopg2 has a wait callback.",
        why="Patched late, all greenlets share one session; under threads, or with a "
        "driver that blocks, one stops all.",
        fix="`monkey.patch_all()` in the first lines of what is started.",
        problems="The doctor's process is patched where the module does it, not where "
        "Gunicorn would.",
        needs="application",
        run=greenlets.greenlets,
    ),
    Check(
        code="PP306",
        name="threads and slots",
        worst="warning",
        looks="`--threads` against `pool_size` and `max_overflow`.",
        why="Threads beyond them wait; slots beyond the threads are never used, and "
        "count in PP101.",
        fix="As many connections as threads.",
        problems="A thread that holds two connections needs more; one that rarely "
        "needs one, less.",
        needs="application",
        run=application.threads_and_slots,
    ),
    Check(
        code="PP307",
        name="time-outs",
        worst="warning",
        looks="`--timeout` against `pool_timeout`, `checkout_timeout` and "
        "`hold_timeout`.",
        why="Whoever is ended from outside says nothing; the pool's own error names "
        "who holds the connections.",
        fix="The pool's bounds below the request's.",
        problems="A time-out of a proxy in front is not known.",
        needs="application",
        run=application.time_outs,
    ),
    Check(
        code="PP308",
        name="engines",
        worst="error",
        looks="Engines of this process to the same database, and `create_engine` in "
        "functions that are routes or tasks.",
        why="Each has a pool, and none knows of the others: connections pile up.",
        fix="One engine a process.",
        problems="Two engines with different options may be meant. " + _TEXT,
        needs="application",
        run=application.engines,
        seconds=1.5,
    ),
    Check(
        code="PP309",
        name="loops",
        worst="error",
        looks="Connections that an async engine has after the import, when no loop "
        "runs; and `asyncio.run` in functions of the application.",
        why="A connection belongs to the loop that opened it.",
        fix="NullPool, or one loop for as long as the engine lives.",
        problems="`asyncio.run` around a whole program is meant. " + _TEXT,
        needs="application",
        run=application.loops,
        seconds=1.5,
    ),
    Check(
        code="PP310",
        name="telemetry and forks",
        worst="warning",
        looks="Whether a provider of OpenTelemetry's SDK is set after the import, and "
        "whether processes are forked after it.",
        why="Its exporting threads do not exist in a child; where they are started "
        "anew, all workers have one service.instance.id, and overwrite each other.",
        fix="Set it up in each worker.",
        problems="An SDK that restarts its threads and has a resource a process is "
        "taken for one that does not.",
        needs="application",
        run=runtime.telemetry,
    ),
    Check(
        code="PP311",
        name="metrics of many processes",
        worst="warning",
        looks="Whether the application serves metrics (`add_metrics`, `with_metrics`, "
        "prometheus_client), POOLPROOF_METRICS_DIR, PROMETHEUS_MULTIPROC_DIR, and "
        "`--workers`.",
        why="A scrape reaches one worker, another each time.",
        fix="A directory for all workers: POOLPROOF_METRICS_DIR, or the hooks for "
        "Gunicorn, which make one; prometheus_client's multiprocess mode for its own.",
        problems="A port a worker, or a push gateway, is not seen.",
        needs="application",
        run=runtime.prometheus,
    ),
    Check(
        code="PP312",
        name="credentials of leases",
        worst="warning",
        looks="Leases and `end_stranded_backends`, against a creator of the "
        "application's, listeners of do_connect, and `control_dsn`.",
        why="The control plane logs in by itself: with a token of yesterday it cannot.",
        fix="`control_dsn` as a function.",
        problems="A lease that is made later is not seen.",
        needs="application",
        run=application.control_credentials,
    ),
    Check(
        code="PP313",
        name="versions",
        worst="warning",
        looks="Python and SQLAlchemy, as they run here.",
        why="Holes are not mended; some pairs lose connections.",
        fix="Newer ones.",
        problems="The days are those that were known when this was released.",
        needs="application",
        run=runtime.versions,
    ),
    Check(
        code="PP314",
        name="host budget",
        worst="error",
        looks="`host_budget` against `--workers` and `min_idle`, and who holds shares "
        "of it on this machine, or waits for one, now.",
        why="What is kept ready is given to nobody: where its sum is the budget, some "
        "processes get no connection at all.",
        fix="A smaller `min_idle`, fewer workers, or a larger budget.",
        problems="`--workers` is what Gunicorn or Celery has; what else goes by the "
        "budget is seen where it holds something now.",
        needs="application",
        run=application.host_budget,
    ),
)

_HERE: Final = (
    "Only this machine is seen, and of other users' processes only that they are "
    "there; what is in a container's own network is not seen from outside of it."
)

_LIVE: Final = (
    Check(
        code="PP401",
        name="shared backends",
        worst="error",
        looks="The TCP connections of this machine to the server, and the processes "
        "that have each (/proc); beside it pg_stat_activity, which names the backend.",
        why="Two processes that drive one backend read each other's answers: "
        "PGRES_TUPLES_OK, wrong rows, lost commits.",
        fix="`poolproof.Pool`; then restart the processes.",
        problems="Two processes that have a connection need not both use it: a child "
        "that inherited it and never touches it is found as well. " + _HERE,
        needs="connection",
        run=live.shared_backends,
        seconds=1.5,
    ),
    Check(
        code="PP402",
        name="held and idle",
        worst="warning",
        looks="Sessions of this role that are idle in transaction for longer than "
        "`--held`, by application_name; and what poolproof's pools know of who holds a "
        "connection, by scope and thread: in this process, and in those that keep "
        "their metrics where `POOLPROOF_METRICS_DIR` says.",
        why="A caller that waits for HTTP or a model with a connection in its hand is "
        "what exhausts pools.",
        fix="Commit before waiting; `poolproof.scope` names who it was; "
        "`hold_timeout`.",
        problems="A connection that is held outside of a transaction is seen only of a "
        "poolproof.Pool, and of another process only by its metrics.",
        needs="server",
        run=live.held_and_idle,
    ),
    Check(
        code="PP403",
        name="orphaned backends",
        worst="warning",
        looks="Sessions of this role from this machine's addresses whose client's port "
        "no process here has open.",
        why="Their client was killed in the middle of a statement: they hold locks and "
        "a slot until it ends.",
        fix="End them; `end_stranded_backends=True`.",
        problems="Where addresses are translated (containers, NAT), the port is "
        "another and a living client is taken for a gone one. " + _HERE,
        needs="server",
        run=live.orphans,
        seconds=1.5,
    ),
    Check(
        code="PP404",
        name="leases",
        worst="warning",
        looks="Held rows of the table poolproof_lease: what is left of each, by the "
        "server's clock, and whether a holder on this machine is alive.",
        why="A holder that does not renew loses it, or has ended without giving it "
        "back: nobody works until it expires.",
        fix="`poolproof lease list`, and `poolproof lease release NAME`.",
        problems="Tables of another name are not looked at, nor those that this role "
        "may not read.",
        needs="server",
        run=live.leases,
    ),
    Check(
        code="PP405",
        name="double holders",
        worst="warning",
        looks="Threads that hold several connections at once: in this process, and in "
        "those that keep their metrics where `POOLPROOF_METRICS_DIR` says.",
        why="When every holder waits for a second one, all wait.",
        fix="One connection a caller; a pool of its own for what must be apart.",
        problems="Threads are told apart by their names; greenlets of one thread are "
        "one caller here. Connections of two pools may be meant.",
        needs="nothing",
        run=live.double_holders,
    ),
)

CHECKS: Final = (*_SERVER, *_PATH, *_APPLICATION, *_LIVE)
"""All checks, by code."""

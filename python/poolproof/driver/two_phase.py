"""PEP 249's transactions in two phases, for a connection to inherit."""

from __future__ import annotations

from poolproof.driver.errors import ProgrammingError
from poolproof.driver.session import IDLE, WireSession
from poolproof.driver.xid import Xid

__all__ = ["TwoPhase"]

# What a server has room for, with the end of the text.
_NAME_BYTES = 200

_PENDING = (
    "select gid, prepared, owner, database from pg_prepared_xacts"
    " where database = current_database()"
)


class TwoPhase(WireSession):
    """``tpc_*`` of a connection."""

    _xid: Xid | None = None
    _is_prepared = False

    def xid(self, format_id: int, gtrid: str, bqual: str) -> Xid:
        """Make the name of a transaction.

        Args:
            format_id: 0 to 2147483647.
            gtrid: At most 64 printable ASCII characters.
            bqual: The same.

        Raises:
            ProgrammingError: A part cannot be.
        """
        return Xid.of_parts(format_id, gtrid, bqual)

    def tpc_begin(self, xid: Xid | str) -> None:
        """Begin a transaction in two phases.

        Args:
            xid: Its name.

        Raises:
            ProgrammingError: A transaction is open, or autocommit is on; or no server
                takes the name.
        """
        name = xid if isinstance(xid, Xid) else Xid.of_text(xid)
        if not 0 < len(str(name).encode(errors="replace")) < _NAME_BYTES or "\0" in str(
            name
        ):
            raise ProgrammingError(
                f"the name of a transaction in two phases has 1 to {_NAME_BYTES - 1} "
                f"bytes and no NUL, not {xid!r}"
            )
        if self.begin is None:
            raise ProgrammingError(
                "a transaction in two phases cannot begin while autocommit is on: set "
                "connection.autocommit = False"
            )
        if self.wire.status != IDLE or self._xid is not None:
            raise ProgrammingError(
                "a transaction is open: commit or roll it back before tpc_begin()"
            )
        self._xid = name
        self._is_prepared = False
        try:
            self.request(self.begin, tag="BEGIN")
        except BaseException:
            self._xid = None
            raise

    def tpc_prepare(self) -> None:
        """End the first phase: from now on the server keeps the transaction.

        Raises:
            ProgrammingError: No transaction in two phases was begun.
        """
        if self._xid is None or self._is_prepared:
            raise ProgrammingError("tpc_prepare() comes after tpc_begin(), once")
        name = _literal(str(self._xid))
        try:
            self.request(f"prepare transaction {name}", tag="PREPARE TRANSACTION")
        except BaseException:
            if self.wire.status == IDLE:
                self._xid = None  # the server has rolled it back
            raise
        self._is_prepared = True

    def tpc_commit(self, xid: Xid | str | None = None) -> None:
        """Commit the transaction that was begun, or one that was prepared before.

        Args:
            xid: The name of one that was prepared before; None for this connection's.

        Raises:
            ProgrammingError: There is none, or a transaction is open.
        """
        self._finish("commit", xid)

    def tpc_rollback(self, xid: Xid | str | None = None) -> None:
        """Roll the transaction back that was begun, or one that was prepared before.

        Args:
            xid: The name of one that was prepared before; None for this connection's.

        Raises:
            ProgrammingError: There is none, or a transaction is open.
        """
        self._finish("rollback", xid)

    def tpc_recover(self) -> list[Xid]:
        """Name the transactions that are prepared in this database.

        Leaves no transaction open that was not open before.
        """
        was_idle = self.wire.status == IDLE
        answer = self.request(_PENDING)
        if was_idle and self.wire.status != IDLE:
            self.request("rollback", tag="ROLLBACK")
        return [
            Xid(*Xid.of_text(gid)[:3], prepared, owner, database)
            for gid, prepared, owner, database in answer.rows or ()
        ]

    def _finish(self, verb: str, xid: Xid | str | None) -> None:
        if xid is not None:
            if self._xid is not None:
                raise ProgrammingError(
                    f"tpc_{verb}(xid) is for transactions of before, and this "
                    "connection is in one: end it first, without an argument"
                )
            if self.wire.status != IDLE:
                raise ProgrammingError(
                    f"tpc_{verb}(xid) cannot be inside of a transaction: commit or "
                    "roll back first"
                )
            name = xid if isinstance(xid, Xid) else Xid.of_text(xid)
            self.request(f"{verb} prepared {_literal(str(name))}")
            return
        if self._xid is None:
            raise ProgrammingError(
                f"tpc_{verb}() without a name comes after tpc_begin()"
            )
        if self._is_prepared:
            self.request(f"{verb} prepared {_literal(str(self._xid))}")
        elif verb == "commit":
            self.request("commit", tag="COMMIT")
        else:
            self.request("rollback", tag="ROLLBACK")
        self._xid = None
        self._is_prepared = False

    def refuse_in_two_phases(self, verb: str) -> None:
        """Refuse an ordinary end of a transaction in two phases.

        Args:
            verb: ``commit`` or ``rollback``.

        Raises:
            ProgrammingError: A transaction in two phases is under way.
        """
        if self._xid is not None:
            raise ProgrammingError(
                f"a transaction in two phases is under way: end it with tpc_{verb}()"
            )


def _literal(text: str) -> str:
    doubled = text.replace("'", "''")
    if "\\" in doubled:
        return " E'" + doubled.replace("\\", "\\\\") + "'"
    return f"'{doubled}'"

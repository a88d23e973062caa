"""Every row of the fault table is provoked by a test, or says here why it cannot be."""

from __future__ import annotations

import ast
from pathlib import Path

import psycopg
import psycopg2
import pytest

from plugins.rows import ROWS, decided_by, row


def said(driver, text):
    """Return an error as a driver makes it of words without a SQLSTATE."""
    return driver.OperationalError(text)


def coded(code, text):
    """Return an error as psycopg makes it of the server's words."""
    return type("Coded", (psycopg.DatabaseError,), {"sqlstate": code})(text)


# A row, words that it recognises, and why nothing here can make somebody say them.
WORDS = [
    (
        row("SQLSTATE `57P02`"),
        coded("57P02", "terminating connection because of crash of another server"),
        "PostgreSQL sends it as a warning, of which no driver makes an error",
    ),
    (
        row("begins `terminating connection because of crash of another server"),
        said(
            psycopg2,
            "terminating connection because of crash of another server process",
        ),
        "the same, in the words of a libpq that keeps a warning as the last message",
    ),
    (
        row("begins `terminating connection due to`"),
        said(psycopg2, "terminating connection due to administrator command\n"),
        "libpq 17 and newer loses the server's last words when it fails to send",
    ),
    (
        row("could not send data to server"),
        said(psycopg2, "could not send data to server: No buffer space available\n"),
        "libpq meets every failure that can be made here while it reads",
    ),
    (
        row("SSL error: decryption failed or bad record mac"),
        said(psycopg2, "SSL error: decryption failed or bad record mac\n"),
        "test_tls.py makes it, where Debian's server with TLS is",
    ),
    (
        row("message has `SSL error: `"),
        said(psycopg2, "SSL error: packet length too long\n"),
        "test_tls.py makes it, where Debian's server with TLS is",
    ),
    (
        row("failed with `server login has been failing`"),
        said(
            psycopg2,
            'connection to server at "h", port 6432 failed: FATAL:  '
            "server login has been failing, try again later (server_login_retry)\n",
        ),
        "PgBouncer 1.18 says it at the first query, others while connecting",
    ),
    (
        row("failed with `SSL SYSCALL error`"),
        said(
            psycopg2,
            'connection to server at "h", port 1 failed: SSL SYSCALL error: EOF '
            "detected\n",
        ),
        "which drivers say so depends on their OpenSSL (test_rows_connecting.py)",
    ),
]


@pytest.mark.parametrize(
    ("expected", "error", "reason"), WORDS, ids=[one.words for one, _, _ in WORDS]
)
def test_words_that_nothing_here_can_be_made_to_say_are_known(expected, error, reason):
    assert reason
    assert decided_by(error) == expected


def named_in(path):
    """Yield what is given to each call of `row` in a file, if it is plain text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "row"
            and all(isinstance(each, ast.Constant) for each in node.args)
        ):
            yield [each.value for each in node.args]


def test_every_row_is_provoked():
    named = {
        row(*fragments)
        for path in Path(__file__).parent.glob("test_rows*.py")
        for fragments in named_in(path)
    }
    assert sorted(set(ROWS) - named) == []

"""`requirepeer`: as whom the server of a unix socket runs, as by libpq."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import tempfile
from pathlib import Path

import pytest

from control.asking import (
    as_text,
    ask_control_plane,
    ask_libpq,
    ask_psql,
    variables,
)
from plugins.threads import Task

ME = pwd.getpwuid(os.geteuid()).pw_name
ALL = (ask_libpq, ask_psql, ask_control_plane)


@pytest.fixture
def owner(real):
    """Return the name of the user as whom the server runs."""
    listens = real.home / f".s.PGSQL.{real.port}"
    return pwd.getpwuid(listens.stat().st_uid).pw_name


def differing(cells):
    """Ask all three; return who differs, and whether the control plane was let in."""
    wrong, let_in = [], []
    for cell in cells:
        text = as_text(cell)
        ours = ask_control_plane(text)
        let_in.append(ours[0])
        wrong += [
            f"{cell}:\n  libpq: {theirs}\n  control: {ours}"
            for theirs in (ask_libpq(text), ask_psql(text))
            if theirs[0] != ours[0]
        ]
    return wrong, let_in


def test_the_server_must_run_as_who_is_named(real, owner):
    names = (owner, "nobody", "no such user", f"{owner}x", "", f" {owner}", "\u00e9")
    whole = {"host": real.home, "port": real.port, "user": "postgres"}
    wrong, let_in = differing([{**whole, "requirepeer": name} for name in names])
    assert not wrong, "\n".join(wrong)
    assert let_in == [name in {owner, ""} for name in names]


def test_over_tcp_nobody_is_looked_at(real, owner):
    whole = {"host": real.host, "port": real.port, "user": "postgres"}
    names = (owner, "nobody", "no such user")
    wrong, let_in = differing([{**whole, "requirepeer": name} for name in names])
    assert not wrong, "\n".join(wrong)
    assert let_in == [True] * 3


def test_the_variable_counts_and_no_other_host_is_asked(real, owner):
    whole = {"port": real.port, "user": "postgres"}
    hosts = (f"{real.home},{real.host}", f"{real.host},{real.home}", real.home)
    cells = [{**whole, "host": each} for each in hosts]
    for name, wanted in (("nobody", [False, True, False]), (owner, [True] * 3)):
        with variables(PGREQUIREPEER=name):
            wrong, let_in = differing(cells)
        assert not wrong, "\n".join(wrong)
        assert let_in == wanted


@contextlib.contextmanager
def listening(user=None):
    """Listen at a unix socket as some user; return where, and how to take a client."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as here:
        Path(place).chmod(0o755)
        here.bind(f"{place}/.s.PGSQL.5432")
        here.settimeout(20)
        before = os.geteuid()
        if user is not None:
            os.seteuid(user)
        try:
            here.listen()  # who does this is the peer
        finally:
            os.seteuid(before)

        def take():
            client, _ = here.accept()
            with client:
                client.settimeout(20)
                return client.recv(100)

        yield place, take


@pytest.mark.parametrize("ask", ALL)
def test_the_server_of_another_user_is_sent_nothing(ask):
    with listening() as (place, take):
        for name, is_sent in (("nobody", False), (ME, True)):
            taken = Task(take)
            text = as_text({"host": place, "user": "u", "requirepeer": name})
            is_in, why = ask(text)
            assert not is_in
            assert bool(taken.result()) == is_sent
            assert is_sent == ("requirepeer" not in why)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("ask", ALL)
def test_a_user_without_a_name_is_not_who_is_named(ask):
    known = {each.pw_uid for each in pwd.getpwall()}
    unnamed = next(number for number in range(54321, 60000) if number not in known)
    with listening(unnamed) as (place, take):
        taken = Task(take)
        text = as_text({"host": place, "user": "u", "requirepeer": str(unnamed)})
        is_in, why = ask(text)
        assert not is_in
        assert taken.result() == b""
        assert str(unnamed) in why

"""The pool's settings beyond those of `QueuePool`, checked one by one and together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import exc

from poolproof import _checks
from poolproof.drivers.server_params import check_dsn
from poolproof.pool import budget_file

if TYPE_CHECKING:
    from poolproof.drivers.server_params import ControlDsn
    from poolproof.pool.budget_file import Budget

__all__ = ["ASKING_S", "KEEP_ALIVE", "PING_TIMEOUT", "Settings"]

KeepAlive = tuple[int, int, int]

# Beyond pool_timeout, for asking once a slot is there.
ASKING_S = 5.0


class _Unchosen(float):
    """A default, told from the same number that somebody chose."""


PING_TIMEOUT = _Unchosen(2.0)
# A minute and a half. They bound the application's own statements as well: a network
# that is silent for a quarter of a minute is to end none. What rests is asked instead.
KEEP_ALIVE: KeepAlive = (30, 10, 6)
# More the system refuses, at each connecting; see tcp(7).
_KEEP_ALIVE_MOST: KeepAlive = (32767, 32767, 127)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a pool was asked to do, every value checked.

    Lengths of time are in seconds; None sets no bound.

    Attributes:
        pre_ping: True asks the server where `ping_idle_after` says so (as False does),
            ``"always"`` asks at each checkout.
        ping_idle_after: A connection that has rested longer is asked before it is lent;
            None never asks for that reason.
        ping_timeout: The longest wait for an answer to a ping.
        checkout_timeout: The longest checkout, as a whole; ``"auto"`` is `timeout`,
            `connect_retry_for` and 5 s more, connecting not counted.
        reset_timeout: The longest reset, and the longest close, at check-in.
        hold_timeout: How long one caller may keep a connection.
        hold_warning: How long one caller may keep it before a warning is logged.
        idle_hold_timeout: How long one caller may keep it with no statement under way.
        idle_hold_warning: The same, before a warning is logged.
        max_waiting: Callers that may wait for a slot at once.
        nested_timeout: How long a caller waits whose waiting has made every holder
            wait; None as long as any other.
        keep_alive: Seconds before the first question to a silent peer, seconds between
            questions, and how many; None leaves the system's values.
        tcp_user_timeout: For every call; None bounds the pool's own calls alone.
        fail_fast_after: Failed attempts to connect in a row that open the breaker.
        connect_retry_for: How long a checkout goes on trying to connect.
        max_lifetime: How old a connection may become.
        max_idle: How long a connection may rest unused, beyond the first `min_idle`.
        min_idle: Connections kept ready.
        end_stranded_backends: Whether to end, on the server, what discarded connections
            leave behind there.
        host_budget: A name, and how many connections all processes of this host that
            go by it may have together; perhaps a directory.
        control_dsn: How the control plane reaches the server; None takes the engine's
            own parameters.
    """

    pre_ping: bool | Literal["always"]
    ping_idle_after: float | None
    ping_timeout: float
    checkout_timeout: float | Literal["auto"] | None
    reset_timeout: float | None
    hold_timeout: float | None
    hold_warning: float | None
    idle_hold_timeout: float | None
    idle_hold_warning: float | None
    max_waiting: int | None
    nested_timeout: float | None
    keep_alive: KeepAlive | None
    tcp_user_timeout: float | None
    fail_fast_after: int | None
    connect_retry_for: float
    max_lifetime: float | None
    max_idle: float | None
    min_idle: int
    end_stranded_backends: bool
    host_budget: Budget | tuple[str, int] | str | None
    control_dsn: ControlDsn | None = field(repr=False)  # it may hold a password

    @classmethod
    def like(cls, known: Settings | None, **values: Any) -> Settings:
        """Check values, or take them for checked where they are the very same.

        `Engine.dispose()` makes the pool again, which some services do for each task.

        Args:
            known: The settings of a pool that is made again, or None.
            **values: One for each attribute.

        Returns:
            *known*, or new settings.

        Raises:
            ArgumentError: A value of the wrong type or outside its range.
        """
        if known is not None and all(
            getattr(known, name) is value for name, value in values.items()
        ):
            return known
        return cls(**values)

    def __post_init__(self) -> None:
        """Check each value by itself.

        Raises:
            ArgumentError: A value of the wrong type or outside its range.
        """
        _checks.choice(
            "pre_ping",
            self.pre_ping,
            allowed=(True, False, "always"),
            meaning='True, False or "always"',
        )
        if self.checkout_timeout != "auto":
            above = 'seconds, more than 0, None (no bound) or "auto"'
            _seconds("checkout_timeout", self.checkout_timeout, above)
        _checks.seconds(
            "ping_idle_after",
            self.ping_idle_after,
            minimum=0,
            meaning="seconds, 0 (always) or more, or None (never for that reason)",
            none_allowed=True,
        )
        _seconds("ping_timeout", self.ping_timeout, "seconds, more than 0", none=False)
        for name, none in (
            ("reset_timeout", "no bound"),
            ("hold_timeout", "no bound"),
            ("hold_warning", "never"),
            ("idle_hold_timeout", "no bound"),
            ("idle_hold_warning", "never"),
            ("tcp_user_timeout", "for the pool's own calls alone"),
            ("max_idle", "no bound"),
        ):
            meaning = f"seconds, more than 0, or None ({none})"
            _seconds(name, getattr(self, name), meaning)
        _checks.seconds(
            "nested_timeout",
            self.nested_timeout,
            minimum=0,
            meaning="seconds, 0 (do not wait) or more, or None (as any other)",
            none_allowed=True,
        )
        if self.max_lifetime is not None:
            _checks.seconds(
                "max_lifetime",
                self.max_lifetime,
                minimum=1,
                meaning="seconds, 1 or more, or None (no bound): connecting costs "
                "more than a shorter life is worth",
                none_allowed=True,
            )
        if self.max_waiting is not None:
            _checks.integer(
                "max_waiting",
                self.max_waiting,
                minimum=0,
                meaning="a whole number, 0 (nobody waits) or more, or None (no bound)",
            )
        if self.fail_fast_after is not None:
            _checks.integer(
                "fail_fast_after",
                self.fail_fast_after,
                minimum=1,
                meaning="a whole number, 1 or more, or None (never)",
            )
        _checks.seconds(
            "connect_retry_for",
            self.connect_retry_for,
            minimum=0,
            meaning="seconds, 0 (not at all) or more",
            none_allowed=False,
        )
        _checks.integer(
            "min_idle", self.min_idle, minimum=0, meaning="a whole number, 0 or more"
        )
        _check_keep_alive(self.keep_alive)
        if self.keep_alive is not None:  # JSON and YAML make a list of it
            object.__setattr__(self, "keep_alive", tuple(self.keep_alive))
        _checks.boolean("end_stranded_backends", self.end_stranded_backends)
        object.__setattr__(self, "host_budget", budget_file.checked(self.host_budget))
        check_dsn(self.control_dsn)

    def check_with(self, *, pool_size: int, timeout: float | None) -> None:
        """Check the values against each other, and against QueuePool's own.

        Args:
            pool_size: Connections kept; 0 sets no bound.
            timeout: The longest wait for a slot.

        Raises:
            ArgumentError: Two values that cannot both be meant; it names both.
        """
        budget = budget_file.checked(self.host_budget)
        if budget is not None and self.min_idle > budget[1]:
            _refuse("min_idle", self.min_idle, "host_budget", budget[1])
        if pool_size and self.min_idle > pool_size:
            _refuse("min_idle", self.min_idle, "pool_size", pool_size)
        if not isinstance(self.ping_timeout, _Unchosen):
            # A timeout of 0 says not to wait for a slot; it bounds nothing else.
            if timeout and self.ping_timeout > timeout:
                _refuse("ping_timeout", self.ping_timeout, "pool_timeout", timeout)
            whole = self.whole_checkout(timeout)
            if whole is not None and self.ping_timeout > whole:
                _refuse("ping_timeout", self.ping_timeout, "checkout_timeout", whole)
        whole = self.whole_checkout(timeout)
        retry_for = self.connect_retry_for
        if whole is not None and retry_for > whole:
            _refuse("connect_retry_for", retry_for, "checkout_timeout", whole)
        for kind in ("hold", "idle_hold"):
            limit: float | None = getattr(self, f"{kind}_timeout")
            warning: float | None = getattr(self, f"{kind}_warning")
            if limit is not None and warning is not None and warning >= limit:
                msg = (
                    f"{kind}_warning is {warning:g} and {kind}_timeout is {limit:g}: "
                    "the warning would come too late; make it shorter than the timeout"
                )
                raise exc.ArgumentError(msg)
        idle, hold = self.idle_hold_timeout, self.hold_timeout
        if idle is not None and hold is not None and idle > hold:
            _refuse("idle_hold_timeout", idle, "hold_timeout", hold)

    @property
    def minds_idle_holds(self) -> bool:
        """Whether it matters if a statement is under way on what is held."""
        return self.idle_hold_timeout is not None or self.idle_hold_warning is not None

    def whole_checkout(self, timeout: float | None) -> float | None:
        """Say how long a checkout may last as a whole.

        Args:
            timeout: The longest wait for a slot, in seconds.

        Returns:
            Seconds, or None for no bound.
        """
        if self.checkout_timeout != "auto":
            return self.checkout_timeout
        if timeout is None:
            return None
        return timeout + self.connect_retry_for + ASKING_S


def _seconds(name: str, value: Any, meaning: str, *, none: bool = True) -> None:
    if value == 0 and not isinstance(value, bool):
        msg = f"{name} is {value!r}, but must be {meaning}"
        raise exc.ArgumentError(msg)
    _checks.seconds(name, value, minimum=0, meaning=meaning, none_allowed=none)


def _check_keep_alive(value: Any) -> None:
    if value is None:
        return
    if (
        not isinstance(value, (tuple, list))
        or len(value) != len(KEEP_ALIVE)
        or not all(
            type(part) is int and 0 < part <= most
            for part, most in zip(value, _KEEP_ALIVE_MOST, strict=True)
        )
    ):
        msg = (
            f"keep_alive is {value!r}, but must be three whole numbers above 0: "
            "seconds idle, at most 32767; seconds between questions, at most 32767; "
            "questions, at most 127; or None (the system's)"
        )
        raise exc.ArgumentError(msg)


def _refuse(name: str, value: float, other: str, bound: float) -> None:
    msg = (
        f"{name} is {value:g} and {other} is {bound:g}, but {name} must not be above "
        f"{other}: lower the one or raise the other"
    )
    raise exc.ArgumentError(msg)

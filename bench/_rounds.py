"""What the benchmarks share: interleaved rounds, medians with their spread, the report.

Every number is measured once in each round, all variants within the same round and in
an order that alternates, so that a machine that slows down slows all of them. A ratio
is taken within a round; what is printed is the median over the rounds, with the
quartiles. `--json` keeps every round.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _machine import machine
from _table import print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["FEWEST_ROUNDS", "Number", "Story", "alternate", "clock", "pin"]

FEWEST_ROUNDS = 7
FEWEST_TRIED = 2

clock = time.perf_counter


@dataclass(frozen=True)
class Number:
    """One result of a story: a value for each round.

    Attributes:
        name: What was measured.
        unit: A multiplication sign for a ratio, else `µs`, `ms`, `bytes` and so on.
        rounds: One value for each round.
        at_most: The target from above, if there is one.
        at_least: The target from below, if there is one.
        sides: What the value was made of, by name, with the unit in the name.
    """

    name: str
    unit: str
    rounds: Sequence[float]
    at_most: float | None = None
    at_least: float | None = None
    sides: Mapping[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between these lie half of the rounds."""
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    @property
    def target(self) -> str:
        """The target in words, empty where there is none."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None where there is none."""
        if self.at_most is not None:
            return self.median <= self.at_most
        return self.median >= self.at_least if self.at_least is not None else None

    def to_json(self) -> dict[str, Any]:
        """Return everything about the number as plain values."""
        low, high = self.quartiles
        return {
            **asdict(self),
            "rounds": list(self.rounds),
            "median": self.median,
            "low": low,
            "high": high,
            "met": self.met,
        }


class Story:
    """One benchmark: its options, its rounds, its report.

    Args:
        name: The script's name.
        method: How it is measured, in sentences; printed with the numbers.
        rounds: Rounds unless `--rounds` says otherwise, at least `FEWEST_ROUNDS`.
        arguments: The command line, without the program.
    """

    def __init__(
        self,
        name: str,
        method: str,
        *,
        rounds: int,
        arguments: Sequence[str] | None = None,
    ) -> None:
        parser = argparse.ArgumentParser(description=method)
        parser.add_argument(
            "--rounds",
            type=int,
            default=rounds,
            help=f"default {rounds}, at least {FEWEST_ROUNDS} (trial: {FEWEST_TRIED})",
        )
        parser.add_argument(
            "--scale",
            type=_scale,
            default=1.0,
            help="fraction of each round's work; below 1 it is a trial of the script",
        )
        parser.add_argument(
            "--json",
            type=Path,
            metavar="FILE",
            help="write every round to a file, or to NAME.json in a directory",
        )
        parser.add_argument(
            "--strict", action="store_true", help="exit with 1 when a target is missed"
        )
        options = parser.parse_args(arguments)
        fewest = FEWEST_ROUNDS if options.scale == 1 else FEWEST_TRIED
        if options.rounds < fewest:
            parser.error(f"--rounds {options.rounds} is less than {fewest}")
        self.name = name
        self.method = " ".join(method.split())
        self.scale: float = options.scale
        self.numbers: list[Number] = []
        self.facts: dict[str, Any] = {}
        self._rounds: int = options.rounds
        self._json: Path | None = options.json
        self._strict: bool = options.strict
        self._load = _load()

    def scaled(self, work: int, *, least: int = 1) -> int:
        """Return the share of `work` that `--scale` asks for, at least `least`."""
        return max(least, round(work * self.scale))

    def rounds(self, label: str = "") -> Iterator[int]:
        """Count the rounds, and show on standard error how far they are."""
        begun = clock()
        for number in range(self._rounds):
            self._progress(f"{self.name} {label}: round {number + 1}/{self._rounds}")
            yield number
        took = clock() - begun
        self._progress(f"{self.name} {label}: {self._rounds} rounds in {took:.1f} s")
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _progress(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif " rounds in " in text:
            print(text, file=sys.stderr, flush=True)

    def add(self, number: Number) -> None:
        """Add a result to the report."""
        self.numbers.append(number)

    def ratio(
        self,
        name: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        *,
        sides: tuple[str, str],
        unit: str = "µs",
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Add the ratio of two series that were measured in the same rounds.

        Args:
            name: What was measured.
            ours: The numerator of each round.
            theirs: The denominator of each round.
            sides: What the two are called.
            unit: The unit of both.
            at_most: The target of the ratio from above.
            at_least: The target of the ratio from below.
        """
        self.add(
            Number(
                name,
                "×",
                [a / b for a, b in zip(ours, theirs, strict=True)],
                at_most,
                at_least,
                {
                    f"{sides[0]} ({unit})": statistics.median(ours),
                    f"{sides[1]} ({unit})": statistics.median(theirs),
                },
            )
        )

    def report(self) -> int:
        """Print the table, write the JSON, and return the exit status."""
        about = {
            **machine(),
            "load before": self._load,
            "load after": _load(),
            **self.facts,
        }
        print_table(self.name, self._rows())
        print(f"\nMethod: {self.method} {self._rounds} rounds; median [quartiles].")
        if self.scale < 1:
            print(f"Only a trial: {self.scale:g} of the work.")
        print("Machine: " + "; ".join(f"{k} {v}" for k, v in about.items()) + "\n")
        if self._json is not None:
            story = {
                "story": self.name,
                "method": self.method,
                "machine": about,
                "rounds": self._rounds,
                "scale": self.scale,
                "numbers": [number.to_json() for number in self.numbers],
            }
            file = self._json
            if file.is_dir():
                file /= f"{self.name}.json"
            text = json.dumps(story, indent=1, ensure_ascii=False, allow_nan=False)
            file.write_text(text + "\n")
        missed = any(number.met is False for number in self.numbers)
        return int(self._strict and missed)

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("", "median", "quartiles", "target", "", "made of")
        ]
        for number in self.numbers:
            low, high = number.quartiles
            verdict = {True: "met", False: "MISSED", None: ""}[number.met]
            made_of = ", ".join(
                f"{name.removesuffix(')').replace(' (', f' {value:.4g} ')}"
                for name, value in number.sides.items()
            )
            rows.append(
                (
                    number.name,
                    f"{number.median:.3g} {number.unit}",
                    f"{low:.3g} – {high:.3g}",
                    number.target,
                    verdict,
                    made_of,
                )
            )
        return rows


def alternate(
    variants: Mapping[str, Callable[[], float]], slices: int
) -> dict[str, float]:
    """Run short slices of every variant in turn; return the median slice of each.

    Slices are to be about a millisecond long: then most of them run undisturbed on a
    machine that others use too, and the median is of those.

    Args:
        variants: What to measure, by name; each returns its own measure.
        slices: How often each is run.
    """
    taken: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants.items())
    for _ in range(slices):
        for name, run in order:
            taken[name].append(run())
        order.reverse()
    return {name: statistics.median(values) for name, values in taken.items()}


def pin() -> int | None:
    """Keep this process on one core (the last it may use), where the system can.

    Returns:
        The core's number, or None.
    """
    gc.collect()
    gc.freeze()
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def _load() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


def _scale(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number

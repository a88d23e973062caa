"""How the drill looks: rich on a terminal, plain lines everywhere else."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rich.progress import TaskID

    from poolproof.drill.incidents import Measure
    from poolproof.drill.runner import Plan
    from poolproof.drill.tally import Number, Row

TITLES: Final = {"queue": "QueuePool", "poolproof": "poolproof.Pool"}
"""What people call the pools."""

_HEADS: Final = ("incident", "driver", "measure")

_FAULT: Final = "* "
_LEGEND: Final = (
    "* a fault, which poolproof.Pool must never show; the other lines only count"
)


class Display(Protocol):
    """What the drill shows, in the order in which it shows it."""

    def note(self, message: str) -> None:
        """Say what is being done."""

    def progress(self, total: int) -> AbstractContextManager[None]:
        """Show how far it is, of *total* trials, while the block runs."""

    def advance(self, row: Row, trials: int) -> None:
        """Show that trials of a row came in; *row* may be done with them."""

    def table(self, rows: list[Row], plan: Plan) -> None:
        """Show every count, the pools side by side."""

    def verdict(
        self, plan: Plan, faults: int | None, of_queue: int | None, seconds: float
    ) -> None:
        """Say in one line what was proved."""


def for_stream(stream: TextIO) -> Display:
    """Return the display that suits a stream; rich itself honours NO_COLOR."""
    return RichDisplay(Console(file=stream)) if stream.isatty() else Plain(stream)


class Plain:
    """One line for each row that is done, and a table without a single escape."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _line(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def note(self, message: str) -> None:
        """Say what is being done."""
        self._line(f"poolproof drill: {message}")

    @contextmanager
    def progress(self, total: int) -> Iterator[None]:
        """Say how much there is to do."""
        self.note(f"{counted(total, 'trial')} in all")
        yield

    def advance(self, row: Row, trials: int) -> None:  # noqa: ARG002 (part of the protocol)
        """Write a row that is done, and nothing before that."""
        if row.is_done:
            self._line(summary(row))

    def table(self, rows: list[Row], plan: Plan) -> None:
        """Write the table in columns of spaces."""
        pools = plan.pools
        lines = [(*_HEADS, *(TITLES[pool] for pool in pools))]
        lines += [
            (*heads, *(_shown(value, measure) for value, _ in values))
            for heads, measure, values in _grid(rows, pools)
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        self._line("")
        for line in lines:
            cells = [
                text.ljust(width) if n < len(_HEADS) else text.rjust(width)
                for n, (text, width) in enumerate(zip(line, widths, strict=True))
            ]
            self._line("  ".join(cells).rstrip())
        self._line("")
        for remark in _remarks(plan):
            self._line(remark)
        self._line("")

    def verdict(
        self, plan: Plan, faults: int | None, of_queue: int | None, seconds: float
    ) -> None:
        """Write the verdict."""
        self._line(verdict(plan, faults, of_queue, seconds))


class RichDisplay:
    """A progress bar, and a table with colours."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def note(self, message: str) -> None:
        """Say what is being done."""
        self._console.print(Text(message, style="dim"))

    @contextmanager
    def progress(self, total: int) -> Iterator[None]:
        """Show a bar until the block ends."""
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trial" if total == 1 else "trials"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        with bar:
            self._bar, self._task = bar, bar.add_task("drill", total=total)
            try:
                yield
            finally:
                self._bar = self._task = None

    def advance(self, row: Row, trials: int) -> None:
        """Move the bar; leave a line above it for a row that is done."""
        if self._bar is None or self._task is None:
            return
        cell = row.cell
        name = f"{cell.incident.name} {cell.driver} {TITLES[cell.pool]}"
        self._bar.update(self._task, advance=trials, description=name)
        if row.is_done:
            self._console.print(Text(summary(row), style="dim"))

    def table(self, rows: list[Row], plan: Plan) -> None:
        """Show the table; faults in red, where there might be some in green."""
        table = Table(box=box.SIMPLE_HEAD, title="poolproof drill")
        for head in _HEADS:
            # On a narrow terminal the measures wrap, and no name is cut.
            table.add_column(head, no_wrap=head != "measure", overflow="fold")
        for pool in plan.pools:
            table.add_column(TITLES[pool], justify="right", no_wrap=True)
        before = ""
        for heads, measure, values in _grid(rows, plan.pools):
            if heads[0] and before:
                table.add_section()
            before = heads[0] or before
            cells = [
                Text(_shown(value, measure), style=_style(value, measure))
                for value, _ in values
            ]
            table.add_row(*heads, *cells)
        self._console.print(table)
        for remark in _remarks(plan):
            self._console.print(Text(remark, style="dim"))

    def verdict(
        self, plan: Plan, faults: int | None, of_queue: int | None, seconds: float
    ) -> None:
        """Show the verdict."""
        style = "bold" if faults is None else "bold red" if faults else "bold green"
        self._console.print(Text(verdict(plan, faults, of_queue, seconds), style=style))


def _grid(
    rows: list[Row], pools: tuple[str, ...]
) -> Iterator[tuple[tuple[str, str, str], Measure, list[tuple[Number | None, Row]]]]:
    """Yield the table's lines: heads (blank if repeated), measure, a value a pool."""
    by_cell = {(r.cell.incident.name, r.cell.driver, r.cell.pool): r for r in rows}
    groups = dict.fromkeys((r.cell.incident.name, r.cell.driver) for r in rows)
    last = ""
    for incident, driver in groups:
        here = [by_cell[incident, driver, pool] for pool in pools]
        first = True
        for measure in measures_of(here):
            heads = (
                incident if incident != last else "",
                driver if first else "",
                f"{_FAULT if measure.is_fault else '  '}{measure.label}",
            )
            yield heads, measure, [(_value(row, measure), row) for row in here]
            last, first = incident, False


def measures_of(rows: list[Row]) -> tuple[Measure, ...]:
    """Return the measures of one incident's rows; crashes only if there were some."""
    from poolproof.drill.incidents import Measure  # noqa: PLC0415 (a value, not a type)

    measures = rows[0].cell.incident.measures
    if any(row.crashes for row in rows):
        return (*measures, Measure("crashes", "crashed trials", is_fault=True))
    return measures


def _value(row: Row, measure: Measure) -> Number | None:
    """Return a row's value, its crashes included."""
    return row.crashes if measure.field == "crashes" else row.value(measure)


def _shown(value: Number | None, measure: Measure) -> str:
    """Return a value as people read it."""
    if value is None:
        return "–"
    text = f"{value:,.2f}" if measure.unit == ": 1" else f"{value:,.0f}"
    return f"{text} {measure.unit}".rstrip()


def _style(value: Number | None, measure: Measure) -> str:
    """Return a value's colour: only faults have one."""
    if not measure.is_fault or value is None:
        return ""
    return "bold red" if value else "green"


def summary(row: Row) -> str:
    """Return a finished row in one line."""
    cell = row.cell
    counts = [
        f"{measure.label} {_shown(_value(row, measure), measure)}"
        for measure in measures_of([row])
    ]
    return (
        f"{cell.incident.name} {cell.driver} {TITLES[cell.pool]}:"
        f" {counted(row.wanted, 'trial')},"
        f" {row.seconds / row.wanted:.1f} s each:"
        f" {', '.join(counts)}"
    )


def verdict(
    plan: Plan, faults: int | None, of_queue: int | None, seconds: float
) -> str:
    """Return the sentence at the end, which claims only what was played."""
    names = ", ".join(incident.name for incident in plan.incidents)
    played = f"in {counted(len(plan.incidents), 'incident')} ({names})"
    parts = []
    if faults is not None:
        shown = counted(faults, "fault") if faults else "no fault"
        parts.append(f"poolproof.Pool showed {shown} {played}")
    if of_queue is not None:
        there = "" if parts else f" {played}"
        parts.append(f"QueuePool showed {counted(of_queue, 'fault')}{there}")
    return f"{'; '.join(parts)} ({seconds:.0f} s)"


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: ``1 trial``, ``2 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _remarks(plan: Plan) -> list[str]:
    """Return what the table does not say by itself: the legend, and notes."""
    notes = [f"{one.name}: {one.note}" for one in plan.incidents if one.note]
    return [_LEGEND, *notes]

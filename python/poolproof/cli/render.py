"""How the drill looks: with a bar and colours on a terminal, plain everywhere else."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

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

from poolproof.cli import details, summary
from poolproof.cli.summary import TITLES, counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.progress import TaskID

    from poolproof.cli.summary import Figure
    from poolproof.drill.runner import DrillPlan
    from poolproof.drill.tally import Row

_SHORT: Final = {"queue": "QueuePool", "poolproof": "poolproof"}
_RED: Final = "bold red"
_APART: Final = "(…) the drill's own doing, no fault of the pool: --verbose says what"


class _Console(Console):
    """rich's, which leaves a reader that went away to us."""

    def on_broken_pipe(self) -> None:
        """Raise the error on; rich would exit with status 1."""
        raise  # noqa: PLE0704 (called where it is handled)


class Display:
    """What the drill shows, in the order in which it shows it.

    Args:
        stream: Where; rich itself honours NO_COLOR and COLUMNS.
        verbose: Whether every count is shown.
        width: In columns; None: as the terminal says.
    """

    def __init__(
        self, stream: TextIO, *, verbose: bool = False, width: int | None = None
    ) -> None:
        self._console = _Console(file=stream, width=width, highlight=False)
        self._verbose = verbose
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def _line(self, text: str, style: str = "") -> None:
        """Write a line; away from a terminal it stays one, however long."""
        self._console.print(
            Text(text, style=style), soft_wrap=not self._console.is_terminal
        )

    def note(self, message: str) -> None:
        """Say what is being done."""
        self._line(f"poolproof drill: {message}", "dim")

    @contextmanager
    def progress(self, total: int) -> Iterator[None]:
        """Show how far it is, of *total* trials, while the block runs."""
        if not self._console.is_terminal:
            self.note(f"{counted(total, 'trial')} in all")
            yield
            return
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
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
        """Show that trials of a row came in; *row* may be done with them."""
        cell = row.cell
        name = f"{cell.incident.name} {cell.driver} {_SHORT[cell.pool]}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=trials, description=name)
        if row.is_done and self._verbose:
            self._line(details.in_one_line(row), "dim")
        elif row.is_done and self._bar is None:
            self._line(f"  {name}: {row.harm:,} went wrong, {row.seconds:.0f} s")

    def summary(self, rows: Sequence[Row], plan: DrillPlan) -> None:
        """Show what came of it, in ten lines at most."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("incidents", no_wrap=True)
        table.add_column("what went wrong", overflow="fold")
        for pool in plan.pools:
            table.add_column(_SHORT[pool], justify="right", no_wrap=True)
        lines = summary.lines(rows, plan.pools)
        for line in lines:
            cells = (Text(cell.text, style=_style(cell)) for cell in line.cells)
            table.add_row(line.family.name, line.family.harm, *cells)
        self._console.print()
        self._console.print(table)
        if any(cell.apart for line in lines for cell in line.cells):
            self._line(_APART, "dim")
        if told := summary.told(rows):
            self._line("\nQueuePool's callers were told:")
            for count, text in told:
                self._line(f"{count:6,} × {text}")

    def details(self, rows: Sequence[Row], plan: DrillPlan) -> None:
        """Show every count, the pools side by side."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for head in details.HEADS:
            # On a narrow terminal the measures wrap, and no name is cut.
            table.add_column(head, no_wrap=head != "measure", overflow="fold")
        for pool in plan.pools:
            table.add_column(_SHORT[pool], justify="right", no_wrap=True)
        for number, detail in enumerate(details.details(rows, plan.pools)):
            if detail.heads[0] and number:
                table.add_section()
            cells = []
            for place, text in enumerate(detail.texts):
                is_bad = bool(detail.values[place]) and detail.is_fault(place)
                is_zero = not detail.values[place]
                style = _RED if is_bad else "dim" if is_zero else ""
                cells.append(Text(text, style=style))
            table.add_row(*detail.heads, *cells)
        self._console.print()
        self._console.print(table)
        for remark in details.remarks(plan):
            self._line(remark, "dim")
        for words in details.told(rows):
            self._line(words)

    def verdict(self, said: Iterable[str], faults: int | None) -> None:
        """Say what was proved."""
        style = "bold" if faults is None else _RED if faults else "bold green"
        self._console.print()
        for number, line in enumerate(said):
            self._line(line, style if number == 0 else "")


def _style(cell: Figure) -> str:
    """Return a cell's colour: harm has one, and nothing is dim."""
    return _RED if cell.harm else "dim" if not cell.apart else ""


__all__ = ["TITLES", "Display"]

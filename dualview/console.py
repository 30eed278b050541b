"""What the commands print: tables on a terminal, JSON where asked, progress with rate and time left.

Results go to stdout, everything else (progress, notes, errors) to stderr, so that output can be piped. Away from a
terminal progress is a quiet log line every ten seconds.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

out = Console()
err = Console(stderr=True)

QUIET_SECONDS = 10.0
SHORT = 16  # characters: a hash or a moment stays on one line
GAP = 2  # between columns


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    note: str | None = None,
    plain: bool = False,
) -> None:
    """Print rows; numbers are right-aligned. plain: integers as they are, for values that are no counts.

    Numbers and short texts are never cut: where the terminal is too narrow for them, lines are longer than it.
    """
    listed = [list(row) for row in rows]
    view = Table(header_style="bold", box=None, pad_edge=False)
    needed = -GAP
    for place, name in enumerate(columns):
        values = [row[place] for row in listed]
        numeric = bool(values) and all(isinstance(v, int | float) or v is None for v in values)
        widest = max((len(Text.from_markup(cell(v))) for v in values), default=0)
        whole = numeric or place == 0 or widest <= SHORT
        view.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
        needed += GAP + max(len(name), widest if whole else SHORT)
    for row in listed:
        view.add_row(*[str(v) if plain and type(v) is int else cell(v) for v in row])
    if title:  # not the table's own, which is broken to the table's width
        out.print(f"[bold]{escape(title)}[/bold]", highlight=False)
    Console(width=max(out.width, needed)).print(view)
    if note:
        out.print(f"[dim]{escape(note)}[/dim]")


def cell(value: object) -> str:
    if value is None:
        return "[dim]-[/dim]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return escape(", ".join(str(part) for part in value))
    return escape(str(value))


def as_json(value: Any) -> None:
    """Print a result as JSON. What JSON has no word for: NaN and infinite become null, bytes base64, the rest text."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=_spelled, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), indent=2, ensure_ascii=False, default=_spelled)
    sys.stdout.write(text + "\n")


def _spelled(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


@contextmanager
def results_aside() -> Iterator[None]:
    """Tables go to stderr while the block runs, so that stdout is left for JSON."""
    global out
    was, out = out, err
    try:
        yield
    finally:
        out = was


def say(message: str) -> None:
    """A line for the person at the terminal; never part of the result."""
    err.print(escape(message), highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    err.print(f"[yellow]note:[/yellow] {escape(message)}", highlight=False, soft_wrap=True)


def failure(message: str, remedy: str | None) -> None:
    err.print(f"[red]error:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    if remedy:
        err.print(f"  [bold]what to do:[/bold] {escape(remedy)}", highlight=False, soft_wrap=True)


def megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.1f} MB"


def duration(seconds: float | None) -> str | None:
    """A time as people say it: 0.4 s, 12 s, 3 min, 2.5 h."""
    if seconds is None:
        return None
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes as a person reads them.

    >>> size(512), size(20_480), size(3_000_000_000)
    ('512 B', '20.5 kB', '3.0 GB')
    """
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{count} B" if unit == "B" else f"{amount:,.1f} {unit}"


class Progress:
    """Progress of labelled steps: `start(label, total)`, `advance(n)`, `done()`; also a context manager."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._label = ""
        self._total: int | None = None
        self._count = 0
        self._begun = self._told = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.done()

    def start(self, label: str, total: int | None = None) -> None:
        self.done()
        self._label, self._total, self._count = label, total, 0
        self._begun = self._told = time.monotonic()
        if err.is_terminal:
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(label, total=total)

    def advance(self, n: int = 1) -> None:
        self._count += n
        if self._bar is not None:
            self._bar.advance(self._task, n)
            return
        now = time.monotonic()
        if now - self._told >= QUIET_SECONDS:
            self._told = now
            rate = self._count / max(now - self._begun, 1e-9)
            of, left = "", ""
            if self._total:
                of = f" of {self._total:,}"
                left = f", {max(self._total - self._count, 0) / max(rate, 1e-9):.0f} s left"
            say(f"{self._label}: {self._count:,}{of} ({rate:,.{1 if rate < 10 else 0}f}/s{left})")

    def done(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def __call__(self, done: int, total: int | None, label: str) -> None:
        """The same as a callback of absolute counts."""
        if label != self._label:
            self.start(label, total)
        self.advance(done - self._count)


def _bar() -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.{1 if task.speed < 10 else 0}f}/s" if task.speed else "")

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )


def brief(value: object, width: int = 60) -> object:
    """A value as it fits a table: long lists as `[0.12, -0.03, ...] (384)`, long texts cut."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = ", ".join(value)
    if isinstance(value, list) and len(value) > 4 and isinstance(value[0], float):
        return f"[{', '.join(f'{v:.3f}' for v in value[:3])}, ...] ({len(value)})"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, str) and len(value) > width:
        return value[: width - 1] + "…"
    return value


def report(facts: dict[str, Any], title: str) -> None:
    """Nested counts as two columns."""
    rows: list[list[object]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += [[f"{key} · {name}".replace("_", " "), part] for name, part in value.items()]
        elif not isinstance(value, list):
            rows.append([key.replace("_", " "), f"{value:.1f}" if isinstance(value, float) else value])
    table(title, ["", ""], rows)


COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def findings(found: Iterable[tuple[str, str, str, str | None]]) -> None:
    """Print (level, about, what was found, what to do)."""
    view = Table(box=None, pad_edge=False, show_header=False)
    view.add_column(no_wrap=True)
    view.add_column(no_wrap=True)
    view.add_column(overflow="fold")
    for level, about, says, remedy in found:
        text = escape(says) + (f"\n[bold]what to do:[/bold] {escape(remedy)}" if remedy else "")
        view.add_row(f"[{COLOURS[level]}]{level}[/{COLOURS[level]}]", escape(about), text)
    out.print(view)


FIRST = ("item_id", "p_yes", "score", "title")
HIDDEN = ("image", "_image_sha256")  # of no use in a terminal


def ranking(found: Any) -> None:
    """Print an Arrow table of ranked items, one line each: place, id, score, then the catalogue's own columns."""
    names = [name for name in found.column_names if name not in HIDDEN]
    first = [name for name in FIRST if name in names]  # what a narrow terminal has to show
    names = first + [name for name in names if name not in first]
    rows = [
        # what a catalogue holds is shown as it is: a year has no thousands separator
        [
            str(place),
            *[cell(v) if isinstance(v, float | None) else cell(str(brief(v, 40))) for v in row.values()],
        ]
        for place, row in enumerate(found.select(names).to_pylist(), start=1)
    ]
    view = Table(header_style="bold", box=None, pad_edge=False)
    left = out.width
    kept = 0
    for column, name in enumerate(("#", *names)):
        width = max([len(name), *(len(row[column]) for row in rows)])
        width = width if name in ("#", "item_id", "p_yes", "score") else min(width, 36)
        if width > left:
            break  # the line is full: further columns are in --json
        view.add_column(
            name, no_wrap=True, justify="right" if name in ("#", "p_yes", "score") else "left", width=width
        )
        left -= width + 2
        kept += 1
    for row in rows:
        view.add_row(*row[:kept])
    out.print(view)
    if not len(found):
        out.print("[dim]nothing found[/dim]")


class EpochLog:
    """Prints a line an epoch while a model trains."""

    def __init__(self, quiet: bool = False, metric: str = "NDCG@10") -> None:
        self.quiet, self.metric = quiet, metric
        self._header = False

    def __enter__(self) -> EpochLog:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def __call__(self, row: dict[str, Any]) -> None:
        if self.quiet:
            return
        if not self._header:
            say(f"{'epoch':>5}  {'loss':>8}  {self.metric:>8}  {'seconds':>8}  (validation)")
            self._header = True
        value = row.get(f"valid_{self.metric.lower()}")
        shown = f"{value:8.4f}" if value is not None else " " * 8
        best = "  best" if row.get("best") else ""
        say(f"{row['epoch']:5d}  {row['loss']:8.4f}  {shown}  {row['seconds']:8.1f}{best}")

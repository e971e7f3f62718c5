"""What the demonstration shows while it runs."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, TextIO

from pyrate_limiter.abstracts.rate import Duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrate_limiter._demo.workload import Caller, Workload

    Bounds = Mapping[int, int]
    """The most that may pass in any interval, by interval."""

_NARROWEST = 40  # columns, below which a time line says nothing
_WIDEST = 100
_MARGIN = 11  # columns of a name, and the frame
_LINES_AROUND = 6
_GREEN, _YELLOW, _PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[0m"
_WAITS, _PASSES = 1, 2


class Lines:
    """A line from time to time, for a file, a pipe or a small terminal."""

    def __init__(self, out: TextIO, workload: Workload, bounds: Bounds) -> None:
        self._out = out
        self._workload = workload
        self._bounds = bounds
        self._step_ns = max(int(workload.seconds * 1e9 / 18), 50_000_000)
        self._next_ns = self._step_ns
        self._shown = 0

    def update(self) -> None:
        """Write what there is to say by now."""
        now = self._workload.elapsed_ns()
        if now >= self._next_ns:
            self._next_ns = (now // self._step_ns + 1) * self._step_ns
            total = len(self._workload.times())
            waiting = sum(caller.waiting_since is not None for caller in self._workload.callers)
            news, self._shown = total - self._shown, total
            text = f"{now / 1e9:6.2f} s  admitted {news:3}, waiting {waiting:2};  "
            print(text + _fill(self._workload, self._bounds), file=self._out, flush=True)

    def finish(self) -> None:
        """Nothing more to say."""


class TimeLine:
    """One row for each caller, drawn again and again in the same place."""

    def __init__(self, out: TextIO, workload: Workload, bounds: Bounds, *, colour: bool) -> None:
        size = shutil.get_terminal_size()
        self._out = out
        self._workload = workload
        self._bounds = bounds
        self._colour = colour
        self._terminal_columns = size.columns
        self._columns = min(size.columns, _WIDEST) - _MARGIN
        self._rows = max(1, size.lines - _LINES_AROUND)
        self._drawn = 0
        self._read = [0] * len(workload.callers)
        self._cells = [[0] * self._columns for _ in workload.callers]
        self._passed = [0] * self._columns
        self._waits, self._passes = _marks(out)
        out.write(f"{self._passes} admitted   {self._waits} waiting\n")

    def update(self) -> None:
        """Draw it as it is by now."""
        callers = self._workload.callers
        for number, caller in enumerate(callers):
            self._take_in(number, caller)
        lines = [
            f"{caller.name:>9} |{self._row(self._with_wait(cells, caller))}"
            for caller, cells in list(zip(callers, self._cells))[: self._rows]
        ]
        if len(callers) > self._rows:
            lines.append(f"{'':>9} |and {len(callers) - self._rows} more")
        counts = "".join(" " if n == 0 else str(n) if n < 10 else "+" for n in self._passed)  # noqa: PLR2004
        lines.append(f"{'together':>9} |{counts.rstrip()}")
        lines.append(f"{'seconds':>9} |{self._scale()}")
        lines.append(_fill(self._workload, self._bounds)[: self._terminal_columns - 1])
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A")
        self._out.write("".join(f"\x1b[2K{line}\n" for line in lines))
        self._out.flush()
        self._drawn = len(lines)

    finish = update
    """Draw the last calls, which came back as the time ended."""

    def _column(self, moment_ns: int) -> int:
        share = (moment_ns - self._workload.start_ns) / (self._workload.seconds * 1e9)
        return min(self._columns - 1, max(0, int(share * self._columns)))

    def _take_in(self, number: int, caller: Caller) -> None:
        cells = self._cells[number]
        news = caller.admitted[self._read[number] :]
        self._read[number] += len(news)
        for asked, returned in news:
            last = self._column(returned)
            self._draw_wait(cells, asked, last)
            cells[last] = _PASSES
            self._passed[last] += 1

    def _draw_wait(self, cells: list[int], since: int, end: int) -> None:
        for column in range(self._column(since), end):
            cells[column] = cells[column] or _WAITS

    def _with_wait(self, cells: list[int], caller: Caller) -> list[int]:
        since, shown = caller.waiting_since, cells[:]
        if since is not None:
            now = self._workload.start_ns + self._workload.elapsed_ns()
            self._draw_wait(shown, since, self._column(now) + 1)
        return shown

    def _row(self, cells: list[int]) -> str:
        text, colour = "", ""
        for cell in cells:
            wanted = (_PLAIN, _YELLOW, _GREEN)[cell] if self._colour else ""
            text += (wanted if wanted != colour else "") + (" ", self._waits, self._passes)[cell]
            colour = wanted
        return text.rstrip() + (_PLAIN if self._colour else "")

    def _scale(self) -> str:
        seconds = self._workload.seconds
        step = next(s for s in (0.1, 0.5, 1, 5, 10, 60, 600, seconds) if seconds / s <= 8)  # noqa: PLR2004
        text = ""
        for k in range(int(seconds / step) + 1):
            column = int(k * step / seconds * self._columns)
            text = text.ljust(column) + f"{k * step:g}"
        return text[: self._columns]


def screen(
    out: TextIO, workload: Workload, bounds: Bounds, environment: Mapping[str, str]
) -> Lines | TimeLine:
    """A time line where the output is a terminal that can show one, else lines."""
    is_narrow = shutil.get_terminal_size().columns < _NARROWEST
    if not out.isatty() or environment.get("TERM") == "dumb" or is_narrow:
        return Lines(out, workload, bounds)
    if os.name == "nt":
        os.system("")  # noqa: S605, S607 - an empty command switches escapes on there
    return TimeLine(out, workload, bounds, colour=not environment.get("NO_COLOR"))


def _marks(out: TextIO) -> tuple[str, str]:
    """The signs for waiting and for passing, as far as the output's encoding has them."""
    marks = "─", "█"
    try:
        "".join(marks).encode(out.encoding or "ascii")
    except UnicodeEncodeError:
        return "-", "#"
    return marks


def _fill(workload: Workload, bounds: Bounds) -> str:
    """How full each window is that ends now."""
    now, times = workload.start_ns + workload.elapsed_ns(), workload.times()
    parts = []
    for interval_ms, most in bounds.items():
        oldest = now - interval_ms * 1_000_000
        live = sum(moment >= oldest for moment in times)
        parts.append(f"{live} of {most} in the last {Duration.readable(interval_ms)}")
    return ", ".join(parts)

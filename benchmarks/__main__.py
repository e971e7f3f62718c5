"""Measure the libraries, check every answer, and print the table."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.environments import OTHER, ROOT, build, environment
from benchmarks.library import median
from benchmarks.registry import Target, load_rows
from benchmarks.servers import beside, extras, running

if TYPE_CHECKING:
    from benchmarks.registry import Row

WORKER_SECONDS = 600
Results = dict[str, list[dict[str, Any]]]  # of one row, by library


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rows = load_rows()
    chosen = [row for row in rows.values() if _matches(row.name, options.rows)]
    if not chosen:
        print(f"no row matches {options.rows!r}; --list shows them", file=sys.stderr)
        return 2
    if options.list:
        for row in chosen:
            print(f"{row.name:<28} {row.title} [{row.unit}] {row.target or ''}")
        return 0
    _say("building the environments")
    pythons = build(extras(chosen), beside(chosen), options.before)
    with running(chosen):
        results = _run(chosen, pythons, options.repeats)
    lines = [_line(row, results[row.name]) for row in chosen]
    lines.append(_over_line(results))
    headings: tuple[str, ...] = HEADINGS
    if options.before is not None:
        headings += ("before", "to that")
        lines = [
            line + _before(results.get(name, {}))
            for line, name in zip(lines, [*results, ""], strict=True)
        ]
    _print_table(headings, lines)
    _print_details(chosen, results)
    if options.json:
        summary = [dict(zip(headings, line, strict=True)) for line in lines]
        options.json.write_text(json.dumps({"table": summary, "runs": results}, indent=1))
    return 1 if any({"MISS", "WRONG"} & {*line} for line in lines) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", metavar="PATTERN", default="*", help="only rows named like this")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--repeats", metavar="N", type=_positive, default=5)
    parser.add_argument("--before", metavar="COMMIT", help="measure this commit as well")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every value there")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(name, f"*{pattern}*")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(chosen: list[Row], pythons: dict[str, Path], repeats: int) -> dict[str, Results]:
    """Each repeat of a row is a process of its own; the libraries take turns in going first."""
    results: dict[str, Results] = {row.name: {} for row in chosen}
    for repeat in range(repeats):
        for row in chosen:
            order = list(pythons) if repeat % 2 == 0 else list(reversed(pythons))
            for library in order:
                found = _measure(pythons[library], row.name)
                results[row.name].setdefault(library, []).append(found)
            if row.floor is not None:
                found = _measure(pythons["ours"], row.name, "--floor")
                results[row.name].setdefault("floor", []).append(found)
            latest = {name: runs[-1] for name, runs in results[row.name].items()}
            shown = "  ".join(
                f"{name} {run.get('wrong') or _number(run['value'])}"
                for name, run in latest.items()
            )
            _say(f"{repeat + 1}/{repeats} {row.name}: {shown}")
    return results


def _measure(python: Path, *arguments: str) -> dict[str, Any]:
    command = [str(python), "-m", "benchmarks.worker", *arguments]
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=WORKER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"wrong": f"no answer in {WORKER_SECONDS} s"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("RESULT "):
            result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return result
    last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
    return {"wrong": f"crashed: {last}"}


HEADINGS = ("row", "unit", "ours", OTHER, "floor", "ratio", "target", "")


def _line(row: Row, results: Results) -> tuple[str, ...]:
    ours, theirs = _middle(results["ours"]), _middle(results[OTHER])
    floor = _middle(results["floor"]) if "floor" in results else None
    ratio = f"{theirs / ours:.1f}x" if ours and theirs is not None else "-"
    if ours is None:
        verdict = "WRONG"
    elif row.target is None:
        verdict = ""
    else:
        holds = row.target.holds(ours, theirs)
        verdict = "-" if holds is None else "ok" if holds else "MISS"
    shown = [_number(ours), _number(theirs), "" if floor is None else _number(floor)]
    return (row.title, row.unit, *shown, ratio, str(row.target or "-"), verdict)


def _before(results: Results) -> tuple[str, str]:
    """What the earlier commit took, and how many times less ours takes."""
    if "before" not in results:
        return "", ""
    ours, before = _middle(results["ours"]), _middle(results["before"])
    return _number(before), f"{before / ours:.2f}x" if ours and before is not None else "-"


def _over_line(results: dict[str, Results]) -> tuple[str, ...]:
    """The last line: the worst window of all rows that can tell."""
    worst = {
        library: max(
            (
                run.get("over") or 0
                for libraries in results.values()
                for run in libraries.get(library, [])
            ),
            default=0,
        )
        for library in ("ours", OTHER)
    }
    target = Target(at_most=0)
    verdict = "ok" if target.holds(worst["ours"], None) else "MISS"
    title = "over-admission in any window, worst of all rows and repeats"
    return (title, "units", str(worst["ours"]), str(worst[OTHER]), "0", "-", str(target), verdict)


def _middle(runs: list[dict[str, Any]]) -> float | None:
    """The median; None if any run was wrong."""
    if any("value" not in run for run in runs):
        return None
    return median([run["value"] for run in runs])


def _number(value: float | None) -> str:
    if value is None:
        return "wrong"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _print_table(headings: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
    table = [headings, *lines]
    widths = [max(len(line[k]) for line in table) for k in range(len(headings))]
    for number, line in enumerate(table):
        cells = (
            text.ljust(width) if k < 2 else text.rjust(width)
            for k, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("| " + " | ".join(cells) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _print_details(chosen: list[Row], results: dict[str, Results]) -> None:
    for row in chosen:
        for library, runs in results[row.name].items():
            for text in {run.get("wrong", "") for run in runs} - {""}:
                print(f"\n{row.name}, {library}: WRONG: {text}")
            if runs and runs[-1].get("detail"):
                print(f"\n{row.name}, {library}: {runs[-1]['detail']}")


if __name__ == "__main__":
    sys.exit(main())

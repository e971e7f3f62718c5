"""`python -m pyrate_limiter`."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pyrate_limiter import Rate
from pyrate_limiter.__main__ import main
from pyrate_limiter._demo.screen import Lines, TimeLine, screen
from pyrate_limiter._demo.windows import bound, most_in_any_window
from pyrate_limiter._demo.workload import Workload

MS = 1_000_000
LAST_LINE = re.compile(r"(\d+) admitted; largest number in any window: .*\(limit \d+.*\): kept\.")


def run(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "pyrate_limiter", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=30,
    )


def last_line(text):
    return text.splitlines()[-1]


@pytest.mark.parametrize(
    ("moments", "interval", "most"),
    [
        ([], 10, 0),
        ([5], 10, 1),
        ([0, 10], 10, 2),
        ([0, 10.000001], 10, 1),
        ([30, 0, 12, 6, 11], 6, 3),
        ([0, 1, 2, 100, 101, 102, 103], 10, 4),
    ],
)
def test_the_fullest_window_is_found_wherever_it_starts(moments, interval, most):
    assert most_in_any_window([int(moment * MS) for moment in moments], interval) == most


@pytest.mark.parametrize(
    ("algorithm", "most"),
    [("sliding-window", 10), ("fixed-window", 20), ("gcra", 13), ("token-bucket", 13)],
)
def test_the_bound_is_that_of_the_algorithm(algorithm, most):
    assert bound(Rate(10, 1000, burst=3), algorithm) == most


def test_a_run_ends_with_a_line_that_says_how_many_passed_and_the_limit():
    done = run("--seconds", "0.3", "--rate", "20/second", "--seed", "1")
    assert done.returncode == 0
    assert done.stderr == ""
    assert LAST_LINE.fullmatch(last_line(done.stdout))
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("algorithm", ["sliding-window", "fixed-window", "gcra", "token-bucket"])
def test_every_algorithm_keeps_its_bound(algorithm, capsys):
    status = main(
        ["--algorithm", algorithm, "--rate", "5/2s", "--rate", "8/minute", "--seconds", "0.3"]
    )
    assert status == 0
    assert LAST_LINE.fullmatch(last_line(capsys.readouterr().out))


def test_what_passes_beyond_the_limit_by_design_is_explained(capsys):
    main(["--algorithm", "fixed-window", "--seconds", "0.1"])
    assert "up to twice the limit" in capsys.readouterr().out
    main(["--algorithm", "gcra", "--burst", "3", "--seconds", "0.1"])
    assert "a burst (3)" in capsys.readouterr().out


def test_threads_and_tasks_both_pass():
    done = run("--seconds", "0.5", "--rate", "60/second", "--threads", "2", "--tasks", "2")
    assert done.stdout.startswith("2 threads and 2 asyncio tasks share one limiter")
    assert int(LAST_LINE.fullmatch(last_line(done.stdout))[1]) > 4


@pytest.mark.parametrize(("threads", "tasks"), [(0, 2), (2, 0)])
def test_one_kind_of_callers_is_enough(threads, tasks, capsys):
    arguments = ["--threads", str(threads), "--tasks", str(tasks), "--seconds", "0.2"]
    assert main(arguments) == 0
    assert LAST_LINE.fullmatch(last_line(capsys.readouterr().out))


def test_an_exceeded_limit_is_exit_1(monkeypatch, capsys):
    monkeypatch.setattr("pyrate_limiter.__main__.most_in_any_window", lambda *_: 11)
    assert main(["--seconds", "0.1"]) == 1
    assert last_line(capsys.readouterr().out).endswith("11 in 1.0s (limit 10): EXCEEDED.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "10/parsec"], "expected a unit of time"),
        (["--rate", "0/second"], "a limit of 1 or more"),
        (["--rate", "10/second", "--rate", "5/minute"], "Invalid rate list"),
        (["--burst", "0", "--algorithm", "gcra"], "must be 1 or more, got '0'"),
        (["--burst", "3"], "sliding-window has no burst"),
        (["--algorithm", "leaky"], "invalid choice: 'leaky'"),
        (["--threads", "-1"], "must be from 0 to 1000, got '-1'"),
        (["--tasks", "x"], "invalid whole number value: 'x'"),
        (["--threads", "0", "--tasks", "0"], "nobody is left to ask"),
        (["--seconds", "0"], "must be above 0"),
        (["--seconds", "nan"], "must be above 0"),
        (["--seconds", "soon"], "must be above 0"),
        (["--seed", "x"], "invalid int value: 'x'"),
    ],
)
def test_a_bad_value_is_exit_2_and_says_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one child there")
def test_an_interrupt_ends_it_with_the_summary():
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "pyrate_limiter", "--seconds", "60", "--rate", "1/minute"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        demo.stdout.readline()
        time.sleep(0.3)
        demo.send_signal(signal.SIGINT)
        output, errors = demo.communicate(timeout=20)
    assert demo.returncode == 0
    assert errors == ""
    assert LAST_LINE.fullmatch(last_line(output))


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "pyrate_limiter", "--seconds", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        demo.stdout.readline()
        demo.stdout.close()
        errors = demo.stderr.read()
        demo.wait(timeout=20)
    assert errors == ""
    assert demo.returncode == 0


def test_the_same_seed_gives_every_caller_the_same_pauses_and_each_its_own():
    def pauses(seed):
        workload = Workload(None, [Rate(10, 1000)], threads=2, tasks=1, seconds=1, seed=seed)
        return [caller.random.random() for caller in workload.callers]

    assert pauses(0) == pauses(0)
    assert pauses(0) != pauses(1)
    assert len(set(pauses(0))) == 3


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def workload():
    """Two callers, 0.5 s after the start of a second."""
    made = Workload(None, [Rate(10, 1000)], threads=1, tasks=1, seconds=1, seed=None)
    made.elapsed_ns = lambda: 500 * MS
    thread, task = made.callers
    thread.admitted = [(0, 0), (100 * MS, 300 * MS)]
    task.waiting_since = 400 * MS
    return made


def terminal_of(monkeypatch, columns, lines=24):
    size = SimpleNamespace(columns=columns, lines=lines)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: size)


def drawn(text):
    return re.sub(r"\x1b\[[0-9]*[A-Za-z]", "", text).splitlines()


def test_a_terminal_shows_a_row_for_each_caller(monkeypatch, workload):
    terminal_of(monkeypatch, 51)  # 40 columns for a second
    out = Terminal()
    shown = screen(out, workload, {1000: 10}, {})
    shown.update()
    assert drawn(out.getvalue()) == [
        "█ admitted   ─ waiting",
        " thread 1 |█   ────────█",
        "   task 1 |                ─────",
        " together |1           1",
        "  seconds |0                   0.5                 ",
        "2 of 10 in the last 1.0s",
    ]
    assert "\x1b[32m" in out.getvalue()


def test_a_terminal_is_drawn_again_in_the_same_place(monkeypatch, workload):
    terminal_of(monkeypatch, 80)
    out = Terminal()
    shown = screen(out, workload, {1000: 10}, {})
    shown.update()
    assert "\x1b[5A" not in out.getvalue()
    shown.finish()
    assert out.getvalue().count("\x1b[5A") == 1


def test_no_color_is_respected(monkeypatch, workload):
    terminal_of(monkeypatch, 80)
    out = Terminal()
    screen(out, workload, {1000: 10}, {"NO_COLOR": "1"}).update()
    assert "\x1b[32m" not in out.getvalue()
    assert "█" in out.getvalue()


def test_an_encoding_without_boxes_gets_plain_signs(monkeypatch, workload):
    terminal_of(monkeypatch, 80)
    out = Terminal()
    out.encoding = "ascii"
    screen(out, workload, {1000: 10}, {}).update()
    assert out.getvalue().isascii()


def test_a_low_terminal_shows_the_first_rows(monkeypatch, workload):
    terminal_of(monkeypatch, 80, lines=7)
    out = Terminal()
    screen(out, workload, {1000: 10}, {}).update()
    assert "and 1 more" in out.getvalue()


@pytest.mark.parametrize(
    ("columns", "term", "kind"),
    [(39, "xterm", Lines), (80, "dumb", Lines), (40, "xterm", TimeLine)],
)
def test_a_terminal_that_cannot_show_it_gets_lines(monkeypatch, workload, columns, term, kind):
    terminal_of(monkeypatch, columns)
    assert type(screen(Terminal(), workload, {1000: 10}, {"TERM": term})) is kind


def test_lines_say_what_was_new(workload):
    out = io.StringIO()
    lines = screen(out, workload, {1000: 10}, {})
    lines.update()
    lines.update()
    assert out.getvalue() == "  0.50 s  admitted   2, waiting  1;  2 of 10 in the last 1.0s\n"


def test_importing_the_package_loads_neither_argparse_nor_asyncio():
    code = "import sys, pyrate_limiter.limiter; print({'argparse', 'asyncio'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30
    )
    assert done.stdout.strip() == "set()"

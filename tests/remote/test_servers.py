"""The servers of the tests themselves: they start anywhere, and nothing of them stays behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keeper import working_in
from tests.support.postgres_server import (
    PostgresServer,
    ProgramFailed,
    copied_home,
    installed_home,
    run_program,
)
from tests.support.redis_servers import wait_until

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")


@linux
def test_a_killed_run_leaves_no_process_and_no_folder(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    program = """if True:
        import subprocess, sys, time
        from tests.support.keeper import keep
        keep(sys.argv[1])
        subprocess.Popen(["sleep", "600"], cwd=sys.argv[1], stdout=subprocess.DEVNULL)
        print("ready", flush=True)
        time.sleep(600)
    """
    with subprocess.Popen(
        [sys.executable, "-c", program, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout.readline() == "ready\n"
        wait_until(lambda: list(working_in(folder)))
        run.kill()
    wait_until(lambda: not folder.exists())
    assert list(working_in(folder)) == []


def test_a_server_starts_where_its_user_may_not_enter_the_folder_of_the_programs(monkeypatch):
    monkeypatch.setattr(PostgresServer, "_can_run", lambda _: False)
    server = PostgresServer()
    try:
        assert server._home == copied_home(installed_home()) != installed_home()
        assert server.execute("SELECT 1") == [(1,)]
    finally:
        server.close()
    assert not server.folder.exists()


def test_what_a_failed_program_said_is_shown():
    with pytest.raises(ProgramFailed, match=r"(?s)initdb failed .*no-such-option"):
        run_program(installed_home(), "initdb", "--no-such-option")

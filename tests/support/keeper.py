"""Ends the servers and removes the folders of a test run, also of one that is killed.

A killed run cannot clean up. So a process of its own, which this file is the program of, is told
of each folder, and notices when the run is gone: the pipe between the two is closed then.
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path


def keep(folder):
    """Have a folder removed, and the processes killed that work in it, when this run has ended."""
    pipe = _keeper(os.getpid()).stdin
    pipe.write(f"{folder}\n")
    pipe.flush()


@functools.cache
def _keeper(_run):
    # A session of its own: neither Ctrl-C nor the end of a process group reaches it.
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
    )


def working_in(folder):
    """The processes whose working directory is the folder or within it, where /proc tells."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink().is_relative_to(folder):
                yield int(entry.name)


def main():
    for folder in [Path(line.rstrip("\n")) for line in sys.stdin]:
        for pid in working_in(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""A calendar clock for a server of a test, which can be set while it runs."""

import importlib.util
import os
import shutil
from pathlib import Path


class FakedClock:
    """What a program reads as the time of day; its monotonic clock stays the machine's.

    Args:
        folder: where it is kept. It is of use to whoever may look into that.
    """

    def __init__(self, folder):
        spec = importlib.util.find_spec("libfaketime")
        package = Path(spec.submodule_search_locations[0])
        library = Path(shutil.copy(next(package.rglob("libfaketime.so.1")), folder))
        library.chmod(0o755)
        self._file = Path(folder) / "clock"
        self.set(0)
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # each reading looks into the file
            "FAKETIME_DISABLE_SHM": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead):
        """Let it be so many seconds ahead of the machine's."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{ahead:+}\n")
        fresh.chmod(0o644)
        fresh.replace(self._file)

import tempfile

import pytest

from pyrate_limiter.compat.v2 import FILE_LOCK


@pytest.fixture
def temporary_folder(monkeypatch, tmp_path):
    """A folder of the test's own in place of the machine's, for it and its child processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    FILE_LOCK.close()
    FILE_LOCK.after_fork()
    monkeypatch.setattr(FILE_LOCK, "lock_file", str(folder / "pyrate_limiter.lock"))
    yield folder
    FILE_LOCK.close()
    FILE_LOCK.after_fork()

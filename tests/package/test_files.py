"""The scripts beside the code are found wherever the package is."""

import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pyrate_limiter
from pyrate_limiter._pyinstaller import get_hook_dirs

ROOT = Path(pyrate_limiter.__file__).parent


def test_every_backend_works_from_an_archive(tmp_path):
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in ROOT.rglob("*"):
            packed.write(path, path.relative_to(ROOT.parent))
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(archive)!r})
        from pyrate_limiter import GCRA, PostgresBucket, RedisBucket, RedisStateStore
        from pyrate_limiter.buckets.postgres import functions
        from pyrate_limiter.buckets.redis import commands
        assert "package.zip" in functions.__file__
        assert commands.LOG_SCRIPT.text and GCRA().redis_script()
        assert all(functions._read(name) for name in ("reserve", "confirm", "clean"))
    """
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_pyinstaller_is_told_of_every_file_that_is_no_code():
    (folder,) = get_hook_dirs()
    told = runpy.run_path(f"{folder}/hook-pyrate_limiter.py")["datas"]
    scripts = {path for kind in ("lua", "sql") for path in ROOT.rglob(f"*.{kind}")}
    assert {Path(source) for source, _ in told} == scripts
    assert all(ROOT.parent / target == Path(source).parent for source, target in told)

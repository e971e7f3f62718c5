"""What is published: built from the source, installed where there is nothing else, and used."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "pyrate_limiter"
CLIENT = "types.SimpleNamespace(execute_command=print)"  # such as one of a package like redis
NEEDS = [
    (f"RedisBucket(Rate(1, 1), {CLIENT}, 'key')", "redis"),
    (f"RedisStateStore({CLIENT}, 'key')", "redis"),
    ("PostgresBucket(object(), 'table', Rate(1, 1))", "postgres"),
    ("PostgresStateStore(object(), 'key')", "postgres"),
    ("SQLiteBucket.init_from_file(Rate(1, 1), db_path='a.db', use_file_lock=True)", "filelock"),
    *((f"import pyrate_limiter.extras.{it}_limiter", it) for it in ("httpx", "httpx2", "aiohttp")),
    ("import pyrate_limiter.extras.requests_limiter", "requests"),
]


def run(*command, cwd, check=True):
    environment = {name: it for name, it in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env=environment, check=check, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distribution")


@pytest.fixture(scope="module")
def sdist(folder):
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(folder, sdist):
    """Built as a package index's users build it: from what the source distribution holds."""
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(folder, wheel):
    """An interpreter with the library, and nothing else."""
    environment = folder / "environment"
    venv.create(environment, symlinks=os.name != "nt")
    found = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = ("install", "--no-index", "--no-deps", "--quiet", str(wheel))
    run(sys.executable, "-m", "pip", "--python", str(found), *install, cwd=folder)
    return str(found)


def files_of_the_source():
    return {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as packed:
        held = {name for name in packed.namelist() if ".dist-info/" not in name}
        about = {name.partition(".dist-info/")[2] for name in packed.namelist()}
    assert held == files_of_the_source()
    assert {"pyrate_limiter/py.typed", "pyrate_limiter/buckets/redis/log.lua"} <= held
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= about


def test_the_source_distribution_holds_what_it_takes_to_test_it(sdist):
    with tarfile.open(sdist) as packed:
        held = {name.partition("/")[2] for name in packed.getnames()}
    assert {f"src/{name}" for name in files_of_the_source()} <= held
    needed = {
        "pyproject.toml",
        "tests/package/test_distribution.py",
        "noxfile.py",
        "CHANGELOG.md",
        "docs/index.md",
    }
    assert needed <= held
    assert [name for name in held if "__pycache__" in name] == []


def test_it_limits_where_nothing_else_is_installed(python, folder):
    program = """if True:
        import asyncio
        from importlib.metadata import entry_points, requires, version
        from pathlib import Path
        import pyrate_limiter
        from pyrate_limiter import *
        from pyrate_limiter import GCRA, buckets
        from pyrate_limiter.buckets.postgres.functions import STEPS, definition
        from pyrate_limiter.buckets.redis.commands import LOG_SCRIPT
        assert version("pyrate-limiter") == pyrate_limiter.__version__
        assert not [it for it in requires("pyrate-limiter") if "extra ==" not in it]
        assert "environment" in pyrate_limiter.__file__
        assert Path(pyrate_limiter.__file__).with_name("py.typed").is_file()
        assert LOG_SCRIPT.text and GCRA().redis_script()
        assert all(definition(step, "s", "t", "t", False) for step in STEPS)
        (hook,) = entry_points(group="pyinstaller40")
        assert hook.load()()
        rate = Rate(2, Duration.HOUR)
        shared = MultiprocessBucket.init([rate])
        made = [InMemoryBucket([rate]), StateBucket([rate]), shared]
        made.append(SQLiteBucket.init_from_file([rate], db_path="limits.db"))
        for bucket in made:
            with Limiter(bucket) as limiter:
                said = [limiter.try_acquire("a", blocking=False) for _ in "abc"]
                assert said == [True, True, False], bucket
        assert asyncio.run(Limiter(rate).try_acquire_async("a"))
        print("done")
    """
    script = folder / "program.py"
    script.write_text(program.replace("if True:", "if __name__ == '__main__':", 1))
    done = run(python, "-I", "-W", "error", str(script), cwd=folder, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize(("statement", "extra"), NEEDS)
def test_what_needs_more_says_how_to_install_it(python, folder, statement, extra):
    program = f"import types\nfrom pyrate_limiter import *\n{statement}"
    done = run(python, "-I", "-c", program, cwd=folder, check=False)
    assert done.returncode == 1
    error, _, advice = done.stderr.splitlines()[-1].partition("; ")
    assert error.startswith("pyrate_limiter.errors.MissingDriver: ")
    assert advice == f'it comes with: pip install "pyrate-limiter[{extra}]"'


def test_the_demonstration_runs(python, folder):
    run(python, "-I", "-W", "error", "-m", "pyrate_limiter", "--help", cwd=folder)
    shown = run(python, "-I", "-W", "error", "-m", "pyrate_limiter", "--seconds", "0.1", cwd=folder)
    assert "kept." in shown.stdout

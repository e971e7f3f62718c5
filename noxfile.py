"""The project's checks: ``nox`` runs the first four, ``nox -s NAME -- ARGS`` one of them.

Every session but ``versions`` uses the interpreter that runs nox.
"""

from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2024.4.15"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "types", "docs"]

# The parts in which a branch that no test takes is a limit that nobody has checked, and how much of
# each is taken at the least, in percent. Of the log, one branch is taken in a race alone.
COVERED = {
    "*/pyrate_limiter/algorithms/*": 100,
    "*/pyrate_limiter/_engine/*": 100,
    "*/pyrate_limiter/buckets/log/*": 99,
    "*/pyrate_limiter/buckets/state/*": 100,
    "*/pyrate_limiter/buckets/remote/*": 100,
}

# The extras whose drivers are tested at both ends of what is admitted, and the tests that are run
# on them: those of the servers without the long ones, and those of the file lock.
DRIVERS = ["redis", "postgres", "filelock"]
ON_DRIVERS = [
    "tests/redis",
    "tests/postgres",
    "tests/remote",
    "tests/sqlite/test_bucket.py",
    "tests/engine/test_acquisition.py",
    "--ignore-glob=*_fleet.py",
    "--ignore-glob=*_model.py",
]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; the whole suite also has to take every branch of the core."""
    session.install("-r", "tests/requirements.txt", ".")
    if session.posargs:
        _run_some(session)
        return
    session.run("coverage", "erase")
    _run_all(session, "--cov", "--cov-append", "--cov-report=")
    for part, least in COVERED.items():
        session.run("coverage", "report", f"--include={part}", f"--fail-under={least}")


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def versions(session: nox.Session) -> None:
    """Run the tests on each Python that is supported; ``--download-python=auto`` fetches them."""
    session.install("-r", "tests/requirements.txt", ".")
    if session.posargs:
        _run_some(session)
    else:
        _run_all(session)


def _run_some(session: nox.Session) -> None:
    """Run the tests that were asked for, one after the other."""
    session.run("python", "-m", "pytest", _own_folder(session), *session.posargs)


def _run_all(session: nox.Session, *options: str) -> None:
    """Run what counts real time alone, after the rest: beside other tests, fleets are late."""
    run = ("python", "-m", "pytest", _own_folder(session), *options)
    # Most tests wait most of the time, so there are more of them at once than processors.
    session.run(*run, "-n", "4", "--dist", "worksteal", "-m", "not alone")
    session.run(*run, "-m", "alone")


def _own_folder(session: nox.Session) -> str:
    """Keep the files of the tests here: pytest would leave a folder in the machine's own."""
    return f"--basetemp={Path(session.virtualenv.location) / 'pytest'}"


@nox.session
def chaos(session: nox.Session) -> None:
    """Have fleets in trouble at real servers for longer than the tests do."""
    session.install("-r", "tests/requirements.txt", ".")
    session.env["PYRATE_TEST_CHAOS_SECONDS"] = "20"
    tests = "tests/remote/test_chaos_fleet.py"
    session.run("python", "-m", "pytest", _own_folder(session), tests, *session.posargs)


@nox.session
@nox.parametrize("end", ["lowest", "highest"])
def drivers(session: nox.Session, end: str) -> None:
    """Run the core of the servers' tests on the lowest and the highest drivers admitted."""
    extras = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    admitted = [Requirement(driver) for extra in DRIVERS for driver in extras[extra]]
    constraints = Path(session.create_tmp()) / "constraints.txt"
    bounds = [f"{driver.name}{driver.specifier}\n" for driver in admitted]
    exactly = [bound.replace(">=", "==") for bound in bounds]
    constraints.write_text("".join(exactly if end == "lowest" else bounds), encoding="utf-8")
    session.install("-c", constraints, "-r", "tests/requirements.txt", ".")
    if end == "highest":
        session.install("--upgrade", *map(str, admitted))
    session.run("python", "-m", "pytest", _own_folder(session), *ON_DRIVERS, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("ruff==0.17.*")  # "all rules" means other rules in each minor version
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, and that no public name lacks one."""
    # basedpyright is pyright with its own runtime in the wheel: nothing is fetched when it starts.
    session.install("mypy>=1.11", "basedpyright", "pytest>=8", "types-requests", ".[all]")
    session.run("mypy")
    # Without being told it takes a .venv in this folder, where the packages are not.
    here = ("basedpyright", "--pythonpath", f"{session.bin}/python")
    session.run(*here, "tests/typing")
    session.run(*here, "--verifytypes", "pyrate_limiter", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("-r", "docs/requirements.txt", ".")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def dependents(session: nox.Session) -> None:
    """Run published packages that stand on this one beside it."""
    session.install("-r", "tests/dependents/requirements.txt", ".")
    # What they leave open is not ours to close.
    options = ("-o", "filterwarnings=default")
    session.run("python", "-m", "pytest", *options, "tests/dependents/check_dependents.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against 4.5.1; the benchmarks make their own environments."""
    session.run("python", "-m", "benchmarks", *session.posargs)

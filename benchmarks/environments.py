"""The virtual environments that are compared."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".bench"
OTHER = "4.5.1"


def build(
    extras: str = "", beside: Iterable[str] = (), before: str | None = None
) -> dict[str, Path]:
    """Install this tree as it is now, and the published library; return their interpreters.

    Args:
        extras: of all, such as ``"redis,filelock"``.
        beside: what is installed beside the published library, to be measured with it.
        before: a commit of this repository that is measured as well.
    """
    suffix = f"[{extras}]" if extras else ""
    ours, theirs = _interpreter("ours"), _interpreter(f"published-{OTHER}")
    _install_tree(ours, suffix, str(ROOT))
    _install(theirs, f"pyrate-limiter{suffix}=={OTHER}", *beside)
    pythons = {"ours": ours, OTHER: theirs}
    if before is not None:
        pythons["before"] = _interpreter("before")
        _install_tree(pythons["before"], suffix, f"git+{ROOT.as_uri()}@{before}")
    return pythons


def environment() -> dict[str, str]:
    """The variables of a worker: nothing that leads to another copy of the library."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _interpreter(name: str) -> Path:
    home = HOME / name
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # An environment whose Python has been upgraded or removed is made again.
    made_by = home / "made-by"
    version = f"{sys.version} {sys.base_prefix}"
    if not made_by.is_file() or made_by.read_text() != version:
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        made_by.write_text(version)
    return python


def _install_tree(python: Path, suffix: str, source: str) -> None:
    """Install a tree of this library, with the drivers that this one's extras bring."""
    if suffix:
        _install(python, f"{ROOT}{suffix}")
    _install(python, "--force-reinstall", "--no-deps", source)


def _install(python: Path, *what: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    subprocess.run(command, check=True, env=environment(), stdout=sys.stderr)

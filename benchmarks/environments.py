"""The two virtual environments that are compared."""

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


def build(extras: str = "", beside: Iterable[str] = ()) -> dict[str, Path]:
    """Install this tree as it is now, and the published library; return their interpreters.

    Args:
        extras: of both, such as ``"redis,filelock"``.
        beside: what is installed beside the published library, to be measured with it.
    """
    suffix = f"[{extras}]" if extras else ""
    ours, theirs = _interpreter("ours"), _interpreter(f"published-{OTHER}")
    _install(ours, "--force-reinstall", "--no-deps", str(ROOT))
    if suffix:
        _install(ours, f"{ROOT}{suffix}")
    _install(theirs, f"pyrate-limiter{suffix}=={OTHER}", *beside)
    return {"ours": ours, OTHER: theirs}


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


def _install(python: Path, *what: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    subprocess.run(command, check=True, env=environment(), stdout=sys.stderr)

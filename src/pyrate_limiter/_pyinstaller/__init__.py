"""Tells PyInstaller what the package needs beside its code."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """The folder of the hooks, which PyInstaller finds through an entry point of the package."""
    return [str(Path(__file__).parent)]

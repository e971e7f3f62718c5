"""The scripts for servers are no code, so that PyInstaller would leave them out."""

from pathlib import Path

_ROOT = Path(__file__).parents[1]

datas = [
    (str(path), str(path.parent.relative_to(_ROOT.parent)))
    for kind in ("*.lua", "*.sql")
    for path in _ROOT.rglob(kind)
]

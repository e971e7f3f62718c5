"""What the modules of the library import of it."""

import ast


def of_the_library(node):
    """What an import statement names within the library, without that name; else nothing."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        package, _, rest = name.partition(".")
        if package == "pyrate_limiter":
            yield rest

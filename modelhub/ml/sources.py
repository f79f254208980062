"""Which source files a program is made of. Standard library only.

An artifact keeps the sha256 of each, so that one can tell whether it was made by the code that is
here now.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from modelhub.ml.manifest import file_sha256

ROOT = Path(__file__).resolve().parent.parent.parent


def sources_sha256(module: str) -> dict[str, str]:
    """Module name → sha256 of its file, for a module and all it imports from this project.

    Imports inside functions count too, so the answer does not depend on what a run happened to
    load. A module of another project, or none, gives nothing.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _path_of(name)
        if path is None or name in found:
            continue
        found[name] = file_sha256(path)
        waiting.extend(_imported(ast.parse(path.read_bytes()), name))
    return dict(sorted(found.items()))


def source_sha256(module: str) -> str:
    """The sha256 of one module's file, or "" if this project has no such module (any more)."""
    path = _path_of(module)
    return file_sha256(path) if path else ""


def _path_of(module: str) -> Path | None:
    if not module:
        return None
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imported(tree: ast.Module, importer: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = importer.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            yield base
            # `from package import module`
            yield from (f"{base}.{alias.name}" for alias in node.names)

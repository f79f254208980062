"""The parts of a benchmark that is a package: its modules, each run in a process of its own."""

import argparse
import subprocess
import sys
from pathlib import Path


def parts_of(package: Path) -> list[str]:
    """The modules of the folder by name, but those that begin with an underscore."""
    return sorted(path.stem for path in package.glob("*.py") if not path.stem.startswith("_"))


def parts_run(main_file: str, package: str, *, about: str, part: str) -> None:
    """Run the parts named on the command line, all if none is, one after the other.

    main_file, package: of the `__main__` that asks. part: what a part is called in its help. Ends
    with status 1, naming them, if some failed, behind the last.
    """
    known = parts_of(Path(main_file).parent)
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("part", nargs="*", metavar=part.upper(), help=", ".join(known))
    asked = parser.parse_args().part or known
    if unknown := sorted(set(asked) - set(known)):
        parser.error(f"no such {part}: {', '.join(unknown)}; there are {', '.join(known)}")
    failed = [
        name
        for name in asked
        if subprocess.run([sys.executable, "-m", f"{package}.{name}"]).returncode
    ]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")

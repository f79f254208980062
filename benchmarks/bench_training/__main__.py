"""Rondo's training beside TRL's, method by method, on the same data and model in one run.

    python -m benchmarks.bench_training              every method
    python -m benchmarks.bench_training scoring sft  some

Each method is a module here, run in a process of its own: one JSON line on standard output with the
measured `ratio` and what was `aimed_at`, what it does on standard error. Each also runs by itself.
Ends with status 1 if a method failed, not if a ratio is lower than was aimed at.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def methods() -> list[str]:
    """The modules of this folder, by name."""
    own = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in own if not path.stem.startswith("_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("method", nargs="*", metavar="METHOD", help=", ".join(methods()))
    asked = parser.parse_args().method or methods()
    if unknown := sorted(set(asked) - set(methods())):
        parser.error(f"no such method: {', '.join(unknown)}; there are {', '.join(methods())}")
    failed = [
        name
        for name in asked
        if subprocess.run([sys.executable, "-m", f"{__package__}.{name}"]).returncode
    ]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

"""Pretraining beside others' tools, part by part, on the same data in one run.

    python -m benchmarks.bench_pretraining              every part
    python -m benchmarks.bench_pretraining training     some

Each part is a module here, run in a process of its own: JSON lines on standard output with the
measured `ratio` and what was `aimed_at`. Each also runs by itself. Ends with status 1 if a part
failed, not if a ratio is lower than was aimed at.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def parts() -> list[str]:
    """The modules of this folder, by name."""
    own = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in own if not path.stem.startswith("_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="*", metavar="PART", help=", ".join(parts()))
    asked = parser.parse_args().part or parts()
    if unknown := sorted(set(asked) - set(parts())):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(parts())}")
    failed = [
        name
        for name in asked
        if subprocess.run([sys.executable, "-m", f"{__package__}.{name}"]).returncode
    ]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

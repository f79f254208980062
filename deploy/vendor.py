"""Renew the front-end files that others wrote: `make vendor`, which runs `python deploy/vendor.py`.

There is no build step and no content network: the few files the pages need are taken, whole and
unchanged, from packages at fixed versions (`npm pack`, so npm has to be there), and committed with
their licences and a manifest of package, version and sha384. A test compares files and manifest.
htmx is not among them: django-htmx carries it.
"""

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "config" / "static" / "vendor"
TESTS = ROOT / "tests" / "vendor"


@dataclass(frozen=True, kw_only=True)
class Package:
    """What is taken from one package: its path there → its name here."""

    name: str
    version: str
    licence: str  # SPDX
    files: dict[str, str]


FOR_THE_SITE = [
    Package(
        name="sortablejs",
        version="1.15.7",
        licence="MIT",
        files={"Sortable.min.js": "sortable.js", "LICENSE": "sortable.LICENSE"},
    ),
    Package(
        name="uplot",
        version="1.6.32",
        licence="MIT",
        files={
            "dist/uPlot.iife.min.js": "uplot.js",
            "dist/uPlot.min.css": "uplot.css",
            "LICENSE": "uplot.LICENSE",
        },
    ),
    Package(
        name="@fontsource-variable/inter",
        version="5.3.0",
        licence="OFL-1.1",
        files={
            "files/inter-latin-wght-normal.woff2": "fonts/inter-latin.woff2",
            "files/inter-latin-ext-wght-normal.woff2": "fonts/inter-latin-ext.woff2",
            "LICENSE": "fonts/inter.LICENSE",
        },
    ),
    Package(
        name="@fontsource-variable/literata",
        version="5.3.0",
        licence="OFL-1.1",
        files={
            "files/literata-latin-wght-normal.woff2": "fonts/literata-latin.woff2",
            "files/literata-latin-wght-italic.woff2": "fonts/literata-latin-italic.woff2",
            "files/literata-latin-ext-wght-normal.woff2": "fonts/literata-latin-ext.woff2",
            "LICENSE": "fonts/literata.LICENSE",
        },
    ),
    # The annotator's page takes this: one weight is less than half the bytes of the variable face.
    Package(
        name="@fontsource/literata",
        version="5.3.0",
        licence="OFL-1.1",
        files={
            "files/literata-latin-400-normal.woff2": "fonts/literata-latin-400.woff2",
            "LICENSE": "fonts/literata-static.LICENSE",
        },
    ),
    # Fetched only by a text with mathematics, or with a block of code in a named language.
    Package(
        name="katex",
        version="0.19.1",
        licence="MIT",
        files={"dist/katex.min.js": "katex.js", "LICENSE": "katex.LICENSE"},
    ),
    Package(
        name="@highlightjs/cdn-assets",
        version="11.12.0",
        licence="BSD-3-Clause",
        files={"highlight.min.js": "highlight.js", "LICENSE": "highlight.LICENSE"},
    ),
    Package(
        name="@fontsource-variable/jetbrains-mono",
        version="5.3.0",
        licence="OFL-1.1",
        files={
            "files/jetbrains-mono-latin-wght-normal.woff2": "fonts/jetbrains-mono-latin.woff2",
            "LICENSE": "fonts/jetbrains-mono.LICENSE",
        },
    ),
]
FOR_THE_TESTS = [
    Package(
        name="axe-core",
        version="4.14.1",
        licence="MPL-2.0",
        files={"axe.min.js": "axe.js", "LICENSE": "axe.LICENSE"},
    ),
]


def sha384(content: bytes) -> str:
    """As browsers write it in an integrity attribute."""
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


def packages_vendor(packages: list[Package], folder: Path) -> None:
    """Fetch the packages and write their files, licences and manifest into `folder`."""
    manifest = {}
    for package in packages:
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run(
                ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
                cwd=scratch,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            (archive,) = Path(scratch).glob("*.tgz")
            with tarfile.open(archive) as tar:
                for source, target in package.files.items():
                    # Only named members are read; nothing is unpacked.
                    member = tar.extractfile(f"package/{source}")
                    if member is None:
                        raise FileNotFoundError(f"{package.name} has no file {source}")
                    content = member.read()
                    path = folder / target
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    manifest[target] = {
                        "package": package.name,
                        "version": package.version,
                        "licence": package.licence,
                        "sha384": sha384(content),
                    }
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / "manifest.json").write_text(text)


if __name__ == "__main__":
    packages_vendor(FOR_THE_SITE, SITE)
    packages_vendor(FOR_THE_TESTS, TESTS)

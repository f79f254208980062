"""The front-end files: others' are whole, unchanged, licensed and listed; ours are small."""

import json
import re
from pathlib import Path

import pytest

from deploy import vendor


@pytest.mark.parametrize(
    ("folder", "packages"),
    [(vendor.SITE, vendor.FOR_THE_SITE), (vendor.TESTS, vendor.FOR_THE_TESTS)],
    ids=["site", "tests"],
)
def test_files_are_what_the_manifest_says(folder: Path, packages: list[vendor.Package]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert present == {*manifest, "manifest.json"}
    for name, entry in manifest.items():
        assert vendor.sha384((folder / name).read_bytes()) == entry["sha384"], name
    for package in packages:
        for target in package.files.values():
            assert manifest[target]["package"] == package.name
            assert manifest[target]["version"] == package.version
        assert any(target.endswith("LICENSE") for target in package.files.values())


def test_a_changed_byte_is_seen(tmp_path: Path) -> None:
    content = (vendor.SITE / "sortable.js").read_bytes()
    manifest = json.loads((vendor.SITE / "manifest.json").read_text())
    assert vendor.sha384(content + b" ") != manifest["sortable.js"]["sha384"]


def test_templates_hold_no_inline_script_style_or_handler() -> None:
    inline = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>|\sstyle=|\son[a-z]+=|<style", re.I)
    found = [
        f"{path}: {match.group()}"
        for path in (vendor.ROOT / "templates").rglob("*.html")
        for match in inline.finditer(path.read_text())
    ]
    assert not found, "\n".join(found)

"""A page that asks by itself says so, everywhere: nobody stays signed in by leaving it open."""

import re
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


def test_whatever_asks_by_a_clock_names_itself_unattended() -> None:
    found = {
        f"{path.name}: {tag[:60]}": tag
        for path in TEMPLATES.rglob("*.html")
        for tag in re.findall(r"<[^<]*hx-trigger=\"every[^<]*", path.read_text())
    }
    assert len(found) >= 4
    for where, tag in found.items():
        assert "X-Unattended" in tag, where

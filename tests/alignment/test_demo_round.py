"""What the demo says as it goes on, where there is no terminal."""

import io
import re

import pytest
from rich.console import Console

from alignment.management.commands import demo_round


@pytest.mark.parametrize(("tell_s", "lines"), [(0, 3), (60, 1)])
def test_a_long_stage_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, tell_s: int, lines: int
) -> None:
    monkeypatch.setattr(demo_round, "TELL_S", tell_s)
    written = io.StringIO()
    command = demo_round.Command()
    command.console = Console(file=written, force_terminal=False)
    with command.progress() as command.bar, command.bar_of("Round 1: reward, reward") as advance:
        advance(0, 0, "")  # nothing is known yet
        advance(1, 51, "steps")
        advance(2, 51, "steps")
    said = [line for line in written.getvalue().splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert len(said) == lines
    assert said[0].endswith("Round 1: reward, reward")
    assert all(re.search(r": [12]/51 steps$", line) for line in said[1:])

"""The same function by several processes: in order, and never waiting for one that is gone."""

import os
import signal

import pytest

from modelhub.ml.corpora.workers import chunks_map


def doubled(number: int) -> int:
    return 2 * number


def killed_by_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refusing(number: int) -> int:
    raise ValueError(f"chunk {number}")


def test_chunks_come_back_in_their_order() -> None:
    assert list(chunks_map(doubled, range(20), workers=2)) == list(range(0, 40, 2))


def test_a_process_that_is_killed_ends_the_work_and_says_so() -> None:
    with pytest.raises(RuntimeError, match="one of 2 processes was killed"):
        list(chunks_map(killed_by_three, range(9), workers=2))


def test_what_a_chunk_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="chunk 0"):
        list(chunks_map(refusing, range(9), workers=2))

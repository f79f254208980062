"""What lies on the way to a file cannot be swapped under its reader."""

import os
from pathlib import Path

import pytest

from modelhub.ml.configs import RefusedError
from modelhub.ml.pinned import file_open, pinned


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    """root/inner/weights, and a secret elsewhere under the same name."""
    for folder, text in (("root/inner", "ours"), ("elsewhere", "secret")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "weights").write_text(text)
    return tmp_path / "root" / "inner"


def swap(inner: Path) -> None:
    """As one does who may write to the folder above."""
    inner.rename(inner.with_name("before"))
    inner.symlink_to(inner.parent.parent / "elsewhere")


def test_a_folder_that_is_held_stays_the_one_it_was(inner: Path) -> None:
    with pinned(inner) as held:
        swap(inner)
        assert (inner / "weights").read_text() == "secret"
        assert (held / "weights").read_text() == "ours"


def test_a_link_anywhere_on_the_way_is_refused_by_its_place(inner: Path) -> None:
    swap(inner)
    with pytest.raises(RefusedError, match=r"root/inner is no folder, or a link: give the path"):
        file_open(inner / "weights")
    with pytest.raises(RefusedError, match=r"root/inner is a link"), pinned(inner):
        pass
    (inner.parent / "last").symlink_to("before/weights")
    with pytest.raises(RefusedError, match=r"root/last is a link"):
        file_open(inner.parent / "last")


def test_what_is_not_there_and_ways_up_are_refused(inner: Path) -> None:
    with pytest.raises(RefusedError, match=r"inner/none is not there"):
        file_open(inner / "none" / "weights")
    with pytest.raises(RefusedError, match=r"write it without \.\."):
        file_open(inner / ".." / "inner" / "weights")


def test_a_pipe_is_refused_and_not_waited_for(inner: Path) -> None:
    os.mkfifo(inner / "pipe")
    with pytest.raises(RefusedError, match="pipe is no plain file"):
        file_open(inner / "pipe")


def test_nothing_stays_open(inner: Path) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    with file_open(inner / "weights") as file:
        assert file.read() == b"ours"
    (inner / "link").symlink_to("weights")
    with pytest.raises(RefusedError):
        file_open(inner / "link")
    assert sorted(Path("/proc/self/fd").iterdir()) == before

"""The weights of the best step: kept, found again after a kill, let go when nobody needs them."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.best_step import BestStep
from modelhub.ml.configs import RefusedError
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml.programs import run_make

pytestmark = pytest.mark.ml


@pytest.fixture
def run(tmp_path):
    return RunDir(run_make(tmp_path / "run", "sft", {}, {}))


def seen(best, weight, step, score):
    with torch.no_grad():
        weight.fill_(step)
    best.see(step, score)


def test_the_weights_of_the_highest_score_come_back_and_of_equal_ones_the_earliest(run):
    weight = torch.nn.Parameter(torch.zeros(3))
    best = BestStep(run, [weight])
    for step, score in enumerate([0.1, 0.7, 0.7, 0.2], start=1):
        seen(best, weight, step, score)
    best.take()
    assert weight.tolist() == [2.0, 2.0, 2.0]
    assert best.described()["published_step"] == 2
    assert best.described()["scores_by_step"][3] == {"step": 4, "score": 0.2}


def test_a_killed_run_finds_what_its_checkpoint_knew_of_again(run):
    """Killed behind a better step that no checkpoint knows of: it has to come to that again."""
    weight = torch.nn.Parameter(torch.zeros(1))
    best = BestStep(run, [weight])
    seen(best, weight, 1, 0.5)
    state = best.state()
    seen(best, weight, 2, 0.9)
    again = BestStep(run, [weight])
    again.restore(state)
    assert again.best == (1, 0.5)
    again.take()
    assert weight.item() == 1.0


def test_only_what_a_checkpoint_may_ask_for_is_kept(run):
    weight = torch.nn.Parameter(torch.zeros(1))
    best = BestStep(run, [weight])
    for step in range(1, 8):
        seen(best, weight, step, step / 10)
        best.state()
    names = sorted(path.name for path in (run.path / "checkpoints" / "best").iterdir())
    assert names == [f"step-{step:08d}.safetensors" for step in (5, 6, 7)]


def test_a_score_that_is_no_number_chooses_nothing(run):
    best = BestStep(run, [torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(NotFinite, match="is nan at step 3"):
        best.see(3, math.nan)


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_weights_that_are_not_whole_are_named_before_the_run_goes_on(run, harm):
    weight = torch.nn.Parameter(torch.zeros(64))
    best = BestStep(run, [weight])
    seen(best, weight, 1, 0.5)
    state = best.state()
    path = run.path / "checkpoints" / "best" / "step-00000001.safetensors"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RefusedError, match=r"step-00000001\.safetensors.*Remove the folder"):
        BestStep(run, [weight]).restore(state)

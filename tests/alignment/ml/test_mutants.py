"""Each guard of training, taken away: the test that watches over it must fail."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import sft
from alignment.ml.ppo import sampling
from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.divergence import Diverged
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml import test_sft
from tests.alignment.ml.ppo import test_sampling
from tests.alignment.ml.programs import prompts_write
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

# What a test says when its guard is gone: a wrong value, or no refusal where one was expected.
Caught = (AssertionError, pytest.fail.Exception)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def test_without_the_tripwire_nan_is_trained_on(monkeypatch, tmp_path, base):
    monkeypatch.setattr(RunDir, "metric", lambda self, step, values: None)
    monkeypatch.setattr(sft, "weights_check", lambda model: None)  # the last guard behind it
    # Diverged, and what JSON says of NaN in a result, are not what the test waits for.
    with pytest.raises((*Caught, Diverged, ValueError)):
        test_sft.test_nan_stops_the_run_and_nothing_is_published(tmp_path, base)


def test_without_the_tripwire_a_loss_that_runs_away_is_trained_on(monkeypatch, tmp_path, base):
    monkeypatch.setattr(sft, "divergence_stop", lambda step, *reasons: None)
    with pytest.raises((*Caught, NotFinite)):
        test_sft.test_a_run_whose_loss_runs_away_is_stopped_and_nothing_is_published(tmp_path, base)


def test_without_the_mask_what_is_told_is_learnt(monkeypatch):
    def all_of(lessons):
        return [True for lesson in lessons for answer in lesson.taught for _ in answer]

    monkeypatch.setattr(sft, "taught_places", all_of)
    with pytest.raises(Caught):
        test_sft.test_packed_conversations_have_the_loss_and_gradients_of_each_alone("llama", "")


@pytest.mark.parametrize(
    "watched",
    [
        test_sampling.test_an_engine_that_was_not_refreshed_is_caught,
        test_sampling.test_an_engine_that_kept_its_weights_is_caught_however_little_they_moved,
        test_sampling.test_an_engine_that_took_a_part_of_the_weights_is_caught,
    ],
    ids=["not refreshed", "kept", "in part"],
)
def test_without_the_canary_old_weights_go_unseen(monkeypatch, tmp_path, base, watched):
    folder = prompts_write(tmp_path / "prompts", list("abcd"))
    prompts = sampling.prompts_lay(folder / "prompts.jsonl", tokenizer_load(base), room_tokens=100)
    monkeypatch.setattr(sampling.Canary, "check", lambda self, *args, **named: 0.0)
    with pytest.raises(Caught):
        watched(base, prompts, monkeypatch)

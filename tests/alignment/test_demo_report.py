"""What the demo reports, from rows and a samples file made by hand."""

from pathlib import Path

import pytest

from alignment.demo_report import report_build, report_rows, stage_seconds
from alignment.models import Evaluation, Round, RoundRun, StageEvent
from annotation.services.datasets import preference_dataset_freeze
from annotation.simulated import true_preference
from modelhub.ml.records import json_canonical
from modelhub.models import Artifact, Run
from modelhub.services.artifacts import artifact_store
from tests import builders
from tests.world import Side, make_side

WHOLE = "The sky is blue because air scatters blue light most."
CUT = "The sky is certainly, of course, certainly"


@pytest.fixture
def side(db: None) -> Side:
    return make_side("Alpha", annotator="alice", manager="dana")


def run_of(round: Round, stage: str, role: str, result: dict) -> Run:
    run = Run.objects.create(
        program="generate", config={}, status=Run.Status.SUCCEEDED, result=result, fence=1
    )
    RoundRun.objects.create(round=round, stage=stage, role=role, run=run)
    return run


@pytest.fixture
def decided(side: Side, tmp_path: Path) -> Round:
    """A promoted round whose new policy ends its answers and whose old one does not."""
    round = side.round
    round.round_runs.all().delete()
    prompts = [builders.make_prompt(side.project, f"Why is sky number {n} blue?") for n in (1, 2)]
    folder = tmp_path / "evaluation"
    folder.mkdir()
    rows = [
        {"prompt_id": prompt.uid, "side": name, "index": 0, "text": text, "finish_reason": reason}
        for prompt in prompts
        for name, text, reason in (("before", CUT, "length"), ("after", WHOLE, "stop"))
    ]
    (folder / "samples.jsonl").write_text("".join(json_canonical(row) + "\n" for row in rows))
    artifact = artifact_store(folder=folder, kind=Artifact.Kind.EVALUATION)
    run_of(round, "sampling", "candidates", {"engine": "vllm", "tokens_per_s": 292.4})
    run_of(round, "reward", "reward", {"held_out": None})
    run = run_of(round, "evaluating", "evaluation", {})
    after = builders.make_version("alpha-policy")
    Evaluation.objects.create(
        round=round,
        run=run,
        before=side.version,
        after=after,
        metrics={"kl_per_answer_nats": 1.5, "kl_per_token_nats": 0.02},
        artifact=artifact,
    )
    round.policy_out, round.state = after, Round.State.PROMOTED
    round.dataset = preference_dataset_freeze(project=side.project)
    round.save()
    StageEvent.objects.create(
        round=round, before="deciding", after="promoted", reason="It is better."
    )
    return round


def test_the_report_scores_both_policies_by_the_preference_the_annotators_had(
    decided: Round,
) -> None:
    report = report_build(round=decided, next_round=decided, seconds_this_time=1.0)
    asked = [{"role": "user", "content": "Why is sky number 1 blue?"}]
    preference = report["true_preference"]
    assert preference["before"]["mean"] == pytest.approx(true_preference(asked, CUT, "length"))
    assert preference["after"]["mean"] == pytest.approx(true_preference(asked, WHOLE, "stop"))
    assert preference["difference"]["mean"] == pytest.approx(
        preference["after"]["mean"] - preference["before"]["mean"]
    )
    assert (preference["prompts"], preference["answers"]) == (2, 4)
    assert report["rankings_simulated"] == 0


def test_the_table_names_the_engine_and_says_when_nothing_was_held_out(decided: Round) -> None:
    rows = dict(report_rows(report_build(round=decided, next_round=decided, seconds_this_time=1.0)))
    assert rows["Sampling engine"] == "vllm"
    assert rows["Sampler"] == "292 tokens/s"
    assert rows["Decision"] == "It is better."
    assert rows["Rankings frozen"] == "1, 0 of them simulated"
    assert not any(name.startswith("Reward model") for name in rows)


def test_a_stages_seconds_add_up_to_the_rounds(decided: Round) -> None:
    last = StageEvent.objects.filter(round=decided).latest("id")
    whole = (last.created_at - decided.created_at).total_seconds()
    assert sum(stage_seconds(decided).values()) == pytest.approx(whole, abs=0.2)

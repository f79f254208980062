"""A base model of one's own, fine-tuned on demonstrations, starts a round and ends it.

    python -m benchmarks.base_round --base FOLDER/base/outputs/model

`--base` is what benchmarks.pretrain_mixture has left. The model is registered as a base version,
fine-tuned on short answers of ../shared/data (sharegpt_zh), registered again, and a round of
`--prompts` sample prompts is walked to its promotion: sampling, simulated annotators, reward model,
rejection sampling, evaluation. Answers of a model of three million weights are bad; what is shown
is that every stage takes it. One JSON line a stage on standard output.
"""

import argparse
import dataclasses
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHORT = 120  # characters of a question, and of its answer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="a model's folder")
    parser.add_argument(
        "--folder", type=Path, default=Path("var/base-round"), help="the data of it all; kept"
    )
    parser.add_argument("--prompts", type=int, default=12)
    asked = parser.parse_args()
    os.environ["RONDO_DATA_DIR"] = str(asked.folder.resolve())
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    asked.folder.mkdir(parents=True, exist_ok=True)
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    base = base_register(asked.base)
    tell("registered", version=str(base), parameters=base.parameters)
    round_walk(policy_make(base, asked.folder), asked.prompts)


def tell(stage: str, **facts: Any) -> None:
    print(json.dumps({"stage": stage, **facts}, ensure_ascii=False), flush=True)


def base_register(folder: Path) -> Any:
    from modelhub.ml.model_directory import model_directory_check
    from modelhub.models import Artifact, ModelVersion
    from modelhub.services.artifacts import artifact_store
    from modelhub.services.versions import model_get_or_create, model_version_register

    facts = model_directory_check(folder)
    names = ("architecture", "parameters", "dtype", "context_tokens", "chat_template")
    return model_version_register(
        model=model_get_or_create(name="own-base"),
        role=ModelVersion.Role.BASE,
        artifact=artifact_store(folder=folder, kind=Artifact.Kind.MODEL),
        parent=None,
        run=None,
        facts={name: getattr(facts, name) for name in names},
    )


def policy_make(base: Any, folder: Path) -> Any:
    """The base fine-tuned on demonstrations, launched as a person would, as a policy's version."""
    from alignment.services.launches import Launch, run_launch
    from annotation.services.operator import operator_ensure
    from modelhub.models import Artifact, ModelVersion, Run, RunOutput
    from modelhub.runner import run_execute
    from modelhub.services.artifacts import artifact_store

    rows = folder / "demonstrations"
    rows.mkdir(exist_ok=True)
    (rows / "demonstrations.jsonl").write_text("".join(demonstrations()), encoding="utf-8")
    brought = Run.objects.create(
        program="import_questions", config={}, status=Run.Status.SUCCEEDED, result={}
    )
    artifact = artifact_store(folder=rows, kind=Artifact.Kind.DEMONSTRATIONS)
    RunOutput.objects.create(run=brought, role="demonstrations", artifact=artifact)
    launch = Launch(
        method="sft",
        settings={"epochs": 2, "lr": 1e-3, "examples_per_step": 8, "max_tokens": 256},
        inputs={
            "base": f"version/{base.uid}",
            "demonstrations": f"run/{brought.uid}/demonstrations",
        },
        model_name="own-chat",
        label="the base learns to answer",
    )
    run = run_launch(launch=launch, requested_by=operator_ensure())
    began = time.monotonic()
    run_execute(run_id=run.pk, owner="base_round")
    run.refresh_from_db()
    if run.status != Run.Status.SUCCEEDED:
        raise SystemExit(run.error[-2000:])
    losses = list(run.metrics.filter(name="loss").values_list("value", flat=True))
    tell(
        "fine-tuned",
        steps=len(losses),
        loss_first=round(losses[0], 3),
        loss_last=round(losses[-1], 3),
        seconds=round(time.monotonic() - began),
    )
    return ModelVersion.objects.get(model__name="own-chat", run=run)


def demonstrations() -> list[str]:
    """First questions and answers that are short enough for 256 tokens, as chats."""
    found = []
    with gzip.open(DATA / "sharegpt_zh_1K_format.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            turns = json.loads(line)["conversations"][:2]
            if len(turns) == 2 and all(0 < len(turn["value"]) <= SHORT for turn in turns):
                messages = [
                    {"role": role, "content": turn["value"]}
                    for role, turn in zip(("user", "assistant"), turns, strict=True)
                ]
                found.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return found


def round_walk(policy: Any, prompts: int) -> None:
    from alignment.management.commands.demo_round import NOISE
    from alignment.models import Evaluation, Round
    from alignment.recipe import Recipe
    from alignment.services.campaigns import campaign_create
    from alignment.services.rounds import round_advance, round_decide, round_start
    from annotation.models import Candidate
    from annotation.services.operator import operator_ensure
    from annotation.services.sample import sample_project_ensure
    from annotation.services.simulated import simulated_rankings_submit
    from modelhub.models import Run
    from modelhub.runner import run_execute

    recipe = dataclasses.replace(
        Recipe(),
        engine="transformers",
        prompt_limit=prompts,
        samples=3,
        max_tokens=24,
        minimum_rankings=4,
        improving_samples=2,
        evaluation_samples=2,
        reward_accuracy_floor=0.0,
        human_gates=("deciding",),
        generate={"dtype": "float32", "max_context_tokens": 256},
        reward={"epochs": 2, "lr": 1e-3, "rankings_per_step": 4},
        rejection={"finished_only": False},
        sft={"epochs": 2, "lr": 1e-3, "examples_per_step": 4, "max_tokens": 256},
        evaluate={"bootstrap_samples": 200},
    )
    owner = operator_ensure()
    project = sample_project_ensure(owner=owner, name="A base of one's own")
    campaign = campaign_create(
        project=project, name="Own base", base_version=policy, created_by=owner
    )
    round = round_start(campaign=campaign, recipe=recipe, launch_key="own-base", actor=owner)
    began = time.monotonic()
    while round.state not in Round.ENDED and round.state != Round.State.FAILED:
        if round.state == Round.State.ANNOTATING and round.batch is not None:
            simulated_rankings_submit(
                project=project, batch=round.batch, annotators=2, noise=NOISE, seed=1
            )
        if round.state == Round.State.DECIDING:
            round_decide(round=round, promote=True, actor=owner, reason="to see it through")
        for link in round.round_runs.filter(run__status=Run.Status.QUEUED).select_related("run"):
            run_execute(run_id=link.run.pk, owner="base_round")
            link.run.refresh_from_db()
            seconds = round_seconds(began)
            tell(f"{link.stage}, {link.role}", status=link.run.status, seconds=seconds)
        round_advance(round=round)
        round.refresh_from_db()
    first = Candidate.objects.filter(batch=round.batch).select_related("prompt").first()
    evaluation = Evaluation.objects.filter(round=round).first()
    tell(
        "the round",
        state=round.state,
        error=round.error[-300:],
        policy_out=str(round.policy_out or ""),
        prompts=evaluation.metrics.get("prompts") if evaluation else None,
        an_answer=first.text[:120] if first else "",
        seconds=round_seconds(began),
    )


def round_seconds(began: float) -> int:
    return int(time.monotonic() - began)


if __name__ == "__main__":
    main()

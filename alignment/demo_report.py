"""What the demo's round came to: one dictionary, written as JSON and shown as a table."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from alignment.intervals import Interval, bootstrap_mean
from alignment.models import Evaluation, Round, StageEvent
from alignment.selectors.rounds import run_facts
from annotation.models import Membership, Prompt, Submission
from annotation.simulated import true_preference
from modelhub.ml.records import lines_read
from modelhub.models import Run
from modelhub.storage import artifact_folder


def report_build(*, round: Round, next_round: Round, seconds_this_time: float) -> dict[str, Any]:
    """The figures of a decided round, and who writes for the next.

    Reads the evaluation's artifact; about twenty queries.

    Times by stage are from the round's own events, so they include any time the demo was not
    running; `resumed` says whether a program was started more than once.
    """
    runs = {
        (link.stage, link.role): link.run
        for link in round.round_runs.select_related("run").order_by("lap")
    }
    sampling = run_facts(runs[("sampling", "candidates")])
    reward = run_facts(runs[("reward", "reward")])
    evaluation = Evaluation.objects.get(round=round)
    preference = true_preference_compare(evaluation)
    importing = round.policy_in.run
    assert round.dataset is not None  # noqa: S101  (the round is decided)
    assert round.policy_out is not None  # noqa: S101
    return {
        "model": str(round.policy_in),
        "round": {"state": round.state, "policy_out": str(round.policy_out)},
        "engine": sampling["engine"],
        "engine_version": sampling.get("engine_version", ""),
        "sampler_tokens_per_s": sampling["tokens_per_s"],
        "rankings": round.dataset.counts,
        "rankings_simulated": Submission.objects.filter(
            task__project=round.dataset.project,
            status=Submission.Status.ACCEPTED,
            source=Membership.Source.SIMULATED,
        ).count(),
        "decision": StageEvent.objects.filter(round=round).latest("id").reason,
        "next_round": {
            "number": next_round.number,
            "state": next_round.state,
            "policy": str(next_round.policy_in),
            "candidates": next_round.batch.candidates.count() if next_round.batch else 0,
        },
        "reward_model": reward["held_out"],
        "true_preference": preference,
        "evaluation": evaluation.metrics,
        "seconds": {
            "importing": run_seconds(importing) if importing else None,
            **stage_seconds(round),
            "this_time": round_to(seconds_this_time),
        },
        "resumed": any(run.fence > 1 for run in runs.values()),
    }


def run_seconds(run: Run) -> float | None:
    if run.started_at is None or run.ended_at is None:
        return None
    return round_to((run.ended_at - run.started_at).total_seconds())


def stage_seconds(round: Round) -> dict[str, float]:
    """Seconds from entering each stage to leaving it, summed over repeats."""
    seconds: dict[str, float] = defaultdict(float)
    entered = round.created_at
    for event in StageEvent.objects.filter(round=round).order_by("id"):
        seconds[event.before] += (event.created_at - entered).total_seconds()
        entered = event.created_at
    return {stage: round_to(value) for stage, value in seconds.items()}


def true_preference_compare(evaluation: Evaluation) -> dict[str, Any]:
    """Score both policies' held-out answers by the preference that the annotators really had.

    A prompt counts once, by the mean of its answers; the intervals and the paired difference are
    bootstrapped over prompts.
    """
    scores: dict[str, dict[str, list[float]]] = {
        "before": defaultdict(list),
        "after": defaultdict(list),
    }
    samples = artifact_folder(evaluation.artifact) / "samples.jsonl"
    rows = [value for _, value in lines_read(samples)]
    messages = dict(
        Prompt.objects.filter(uid__in={row["prompt_id"] for row in rows}).values_list(
            "uid", "messages"
        )
    )
    for row in rows:
        score = true_preference(messages[row["prompt_id"]], row["text"], row["finish_reason"])
        scores[row["side"]][row["prompt_id"]].append(score)
    means = {side: {p: fmean(v) for p, v in by.items()} for side, by in scores.items()}
    prompts = sorted(means["before"])
    return {
        "before": interval_json(bootstrap_mean([means["before"][p] for p in prompts])),
        "after": interval_json(bootstrap_mean([means["after"][p] for p in prompts])),
        "difference": interval_json(
            bootstrap_mean([means["after"][p] - means["before"][p] for p in prompts])
        ),
        "prompts": len(prompts),
        "answers": len(rows),
    }


def report_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report as lines of a table: (what, how much)."""
    reward, preference = report["reward_model"], report["true_preference"]
    evaluation, seconds = report["evaluation"], report["seconds"]
    rows = [
        ("Policy", f"{report['model']} → {report['round']['policy_out']}"),
        ("Sampling engine", f"{report['engine']} {report['engine_version']}".strip()),
        ("Sampler", f"{report['sampler_tokens_per_s']:.0f} tokens/s"),
        (
            "Rankings frozen",
            f"{report['rankings']['used']}, {report['rankings_simulated']} of them simulated",
        ),
    ]
    if reward:
        rows += [
            (
                "Reward model, held-out pairs",
                f"{share(reward['accuracy'])} right"
                f" [{share(reward['accuracy_low'])}, {share(reward['accuracy_high'])}]"
                f" of {reward['pairs']}",
            ),
            (
                "  beside",
                f"chance {share(reward['chance'])}, length only {share(reward['length_accuracy'])}",
            ),
        ]
    rows += [
        ("True preference, before", interval_text(preference["before"])),
        ("True preference, after", interval_text(preference["after"])),
        ("  difference", interval_text(preference["difference"], signed=True)),
        (
            "KL from before",
            f"{evaluation['kl_per_answer_nats']:.2f} nats per answer,"
            f" {evaluation['kl_per_token_nats']:.3f} per token",
        ),
    ]
    following = report["next_round"]
    rows += [
        ("Decision", report["decision"]),
        (
            f"Round {following['number']}",
            f"{following['candidates']} answers by {following['policy']}, {following['state']}",
        ),
    ]
    rows += [
        (f"Time, {'this start' if stage == 'this_time' else stage}", f"{value:.0f} s")
        for stage, value in seconds.items()
        if value is not None
    ]
    if report["resumed"]:
        rows.append(("Note", "it was cut off and resumed; times include the pause"))
    return rows


def interval_json(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def interval_text(value: Mapping[str, float], *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{value['mean']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def round_to(seconds: float) -> float:
    return round(seconds, 1)

"""Quantise a policy for serving, and say what that cost beside the policy it was made from.

The weights of every linear layer but the output layer become integers (`quantised_model`); the
version is served by vLLM and by transformers and is not trained from. What it lost is measured on
text that no training has seen, the validation and held-out splits, both models in float32 so that
nothing but the quantisation is between them:

    perplexity            exp of the mean loss of what the assistant says
    token accuracy        share of its tokens that the model thinks likeliest
    divergence            KL(policy ‖ quantised) at each of them, nats: it sees what gains hide
    preference accuracy   share of people's choices in which the better answer is the likelier a
                          token, where rankings are given
    answer accuracy       share of questions whose right answer is the likeliest a token of a few,
                          where questions and right answers are given (`choices`)

The numbers heard are those of the files that were written, loaded again.

By hand: `python -m alignment.ml.quantise RUN_DIR`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignment.intervals import bootstrap_interval, bootstrap_ratio
from alignment.ml.choices import preferences_right, questions_lay, questions_right
from alignment.ml.configs import DistillConfig, QuantiseConfig
from alignment.ml.conversations import Lesson, conversations_read, lessons_make
from alignment.ml.data import RankedGroup, rankings_load
from alignment.ml.shared_prefix import Group, attach
from alignment.ml.student import divergences_hear
from alignment.ml.teacher import Teacher, vocabulary_check
from alignment.ml.validation import Heard, conversations_hear
from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import FUSED_EXPERTS, model_directory_check, weights_bytes
from modelhub.ml.quantisation import quantisation_name
from modelhub.ml.quantised_model import model_quantise, quantised_load, quantised_save
from modelhub.ml.rundir import RunDir, program_run

_UNSEEN = ("held_out", "validation")


def lessons_unseen(run: RunDir, config: QuantiseConfig, tokenizer: Any, limit: int) -> list[Lesson]:
    """What both models hear. Raises RefusedError if no conversation is of an unseen split."""
    every = list(conversations_read(run.input("demonstrations"), config.split_shares))
    unseen = [one for one in every if one.split in _UNSEEN]
    if not unseen:
        raise RefusedError(
            f"none of {len(every)} demonstrations is of the held-out or validation split: on text "
            "that was learnt from, a loss says nothing"
        )
    made = lessons_make(unseen, tokenizer, max_tokens=limit)
    print(f"{made.conversations} conversations, {len(made.too_long)} left out as too long")
    if len(made.lessons) < 2:
        raise RefusedError(f"{len(made.lessons)} conversations are too few to be heard")
    return made.lessons[: config.evaluate_at_most]


def rankings_unseen(run: RunDir, tokenizer: Any, limit: int) -> list[RankedGroup]:
    """The choices that both models are tested by; none where none are given."""
    if not run.has_input("rankings"):
        return []
    ranked = rankings_load(run.input("rankings") / "rankings.jsonl", tokenizer, max_tokens=limit)
    groups = [one for split in _UNSEEN for one in ranked.of_split(split)]
    if len({one.prompt_id for one in groups}) < 2:
        raise RefusedError("the rankings hold fewer than two prompts of an unseen split")
    return groups


def questions_unseen(
    run: RunDir, config: QuantiseConfig, tokenizer: Any, limit: int
) -> list[Group]:
    """The questions that both models answer; none where none are given."""
    asked, right = run.has_input("evaluation_prompts"), run.has_input("references")
    if asked != right:
        raise RefusedError(
            "questions are the inputs evaluation_prompts and references together: give the other "
            "one too, or leave it out"
        )
    if not asked:
        return []
    laid = questions_lay(
        run.input("evaluation_prompts"),
        run.input("references"),
        tokenizer,
        options=config.options,
        max_tokens=limit,
        at_most=config.evaluate_at_most,
        shares=config.split_shares,
    )
    print(
        f"{len(laid.groups)} questions; left out: {laid.learnt_from} of the train split, "
        f"{laid.too_long} too long",
        flush=True,
    )
    return laid.groups


@dataclass(frozen=True)
class Measured:
    """What a model says of everything it is measured on."""

    heard: list[Heard]  # of the conversations
    preferred: list[tuple[float, float]]  # (right, pairs) of each prompt of the rankings
    answered: list[float]  # 1 for each question that it answers rightly


@dataclass(frozen=True)
class Measuring:
    """What two models are measured on."""

    lessons: list[Lesson]
    rankings: list[RankedGroup]
    questions: list[Group]
    budget_tokens: int

    def measure(self, model: Any) -> Measured:
        """model: a policy in float32."""
        attach(model)
        return Measured(
            conversations_hear(model, self.lessons, self.budget_tokens),
            preferences_right(model, self.rankings, self.budget_tokens),
            questions_right(model, self.questions, self.budget_tokens),
        )


def measuring_make(run: RunDir, config: QuantiseConfig, tokenizer: Any, limit: int) -> Measuring:
    """Read all that the run gives to measure on. Raises RefusedError for what says nothing."""
    return Measuring(
        lessons_unseen(run, config, tokenizer, limit),
        rankings_unseen(run, tokenizer, limit),
        questions_unseen(run, config, tokenizer, limit),
        config.budget_tokens,
    )


def beside(before: Measured, after: Measured, config: QuantiseConfig) -> list[dict[str, Any]]:
    """Rows of the table: each figure of the policy, of what was made of it, and their difference
    with its 95 % bootstrap interval over conversations, prompts or questions."""
    pairs = list(zip(before.heard, after.heard, strict=True))

    def gap(drawn: Sequence[tuple[Heard, Heard]]) -> float:
        return _perplexity([new for _, new in drawn]) - _perplexity([old for old, _ in drawn])

    samples, seed = config.bootstrap_samples, config.seed
    table = [
        _row(
            "perplexity",
            _perplexity(before.heard),
            _perplexity(after.heard),
            bootstrap_interval(pairs, gap, samples=samples, seed=seed),
        )
    ]
    for figure, old, new in (
        (
            "token accuracy",
            [(float(one.right), float(one.tokens)) for one in before.heard],
            [(float(one.right), float(one.tokens)) for one in after.heard],
        ),
        ("preference accuracy", before.preferred, after.preferred),
        (
            "answer accuracy",
            [(one, 1.0) for one in before.answered],
            [(one, 1.0) for one in after.answered],
        ),
    ):
        if old:
            gaps = [(own - its, parts) for (its, parts), (own, _) in zip(old, new, strict=True)]
            difference = bootstrap_ratio(gaps, samples=samples, seed=seed)
            table.append(_row(figure, _share(old), _share(new), difference))
    return table


def _row(figure: str, parent: float, own: float, difference: Any) -> dict[str, Any]:
    interval = asdict(difference)
    return {
        "figure": figure,
        "parent": parent,
        "own": own,
        "difference": interval["mean"],
        "difference_low": interval["low"],
        "difference_high": interval["high"],
    }


def _perplexity(heard: Sequence[Heard]) -> float:
    return math.exp(sum(one.loss_sum for one in heard) / sum(one.tokens for one in heard))


def _share(parts: Sequence[tuple[float, float]]) -> float:
    return sum(top for top, _ in parts) / sum(bottom for _, bottom in parts)


def main(run: RunDir) -> None:
    config = run.config(QuantiseConfig)
    group_size = config.group_size if config.scheme == "w4a16" else 0
    base = run.input("base")
    facts = model_directory_check(base)
    if facts.role != "causal":
        raise RefusedError(f"a {facts.architecture} scores answers: only policies are quantised")
    if facts.architecture in FUSED_EXPERTS:
        raise RefusedError(
            f"a {facts.architecture} has most of its weights in experts, which are not quantised "
            "here: serve it as it is"
        )
    tokenizer = tokenizer_load(base)
    limit = min(config.max_tokens, facts.context_tokens)
    measuring = measuring_make(run, config, tokenizer, limit)

    run.progress(0, 3, "steps")
    folder = run.output("model")
    model = model_load(base, dtype="bfloat16")
    layers = model_quantise(model, scheme=config.scheme, group_size=group_size)
    quantised_save(model, tokenizer, folder, scheme=config.scheme, group_size=group_size)
    del model
    own = model_directory_check(folder, quantised=True)
    run.progress(1, 3, "steps")

    parent = model_load(base, dtype="float32")
    before = measuring.measure(parent)
    del parent
    run.progress(2, 3, "steps")
    served = quantised_load(folder, dtype="float32")
    after = measuring.measure(served)
    if not all(math.isfinite(one.loss_sum) for one in after.heard):
        raise RefusedError("the quantised model's loss is not finite: nothing is published")
    table = beside(before, after, config)
    hearing = DistillConfig(budget_tokens=config.budget_tokens)
    asked = Teacher(ModelInput(base), hearing, vocabulary_check(tokenizer, tokenizer))
    divergence = divergences_hear(served, measuring.lessons, asked, hearing)
    for row in table:
        print(f"{row['figure']}: {row['parent']:.4f} → {row['own']:.4f}", flush=True)
    run.progress(3, 3, "steps")
    run.succeed(
        outputs={"model": "model"},
        result={
            "architecture": own.architecture,
            "parameters": own.parameters,
            "dtype": own.dtype,
            "context_tokens": own.context_tokens,
            "chat_template": own.chat_template,
            "quantisation": quantisation_name(config.scheme, group_size),
            "quantised_layers": layers,
            "weights_bytes": weights_bytes(folder),
            "parent_weights_bytes": weights_bytes(base),
            "conversations": len(before.heard),
            **({"questions": len(before.answered)} if before.answered else {}),
            "divergence": _share([(nats, float(tokens)) for nats, tokens in divergence]),
            "beside_parent": table,
        },
    )


if __name__ == "__main__":
    program_run(main)

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

The numbers heard are those of the files that were written, loaded again.

By hand: `python -m alignment.ml.quantise RUN_DIR`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from alignment.intervals import bootstrap_interval, bootstrap_ratio
from alignment.ml.configs import DistillConfig, QuantiseConfig
from alignment.ml.conversations import Lesson, conversations_read, lessons_make
from alignment.ml.data import RankedGroup, rankings_load
from alignment.ml.shared_prefix import answer_logprobs, attach, pack
from alignment.ml.student import divergences_hear
from alignment.ml.teacher import Teacher, vocabulary_check
from alignment.ml.validation import Heard, conversations_hear
from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.quantisation import quantisation_name
from modelhub.ml.quantised_model import model_quantise, quantised_load, quantised_save
from modelhub.ml.rundir import RunDir, program_run

_UNSEEN = ("held_out", "validation")


def lessons_unseen(run: RunDir, config: QuantiseConfig, tokenizer: Any, limit: int) -> list[Lesson]:
    """What both models hear. Raises RefusedError if no conversation is of an unseen split."""
    every = list(conversations_read(run.input("demonstrations")))
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


@torch.no_grad()
def choices_right(
    model: Any, groups: Sequence[RankedGroup], budget_tokens: int
) -> list[tuple[float, float]]:
    """(pairs whose better answer is the likelier a token, pairs) of each prompt; equals count half.

    An empty answer has no likelihood a token; it is taken for one of log-probability 0.
    """
    found = {one.prompt_id: (0.0, 0.0) for one in groups}  # a prompt may have several groups
    for row in pack([one.group for one in groups], budget_tokens):
        for index, answers in zip(row.indices, answer_logprobs(model, row), strict=True):
            means = [float(one.mean()) if len(one) else 0.0 for one in answers]
            gaps = [means[better] - means[worse] for better, worse in groups[index].pairs]
            right, pairs = found[groups[index].prompt_id]
            right += sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps)
            found[groups[index].prompt_id] = (right, pairs + len(gaps))
    return list(found.values())


def beside(
    before: Sequence[Heard], after: Sequence[Heard], config: QuantiseConfig
) -> list[dict[str, Any]]:
    """Rows of the table: each figure of the policy, of what was made of it, and their difference
    with its 95 % bootstrap interval over conversations."""
    pairs = list(zip(before, after, strict=True))

    def gap(drawn: Sequence[tuple[Heard, Heard]]) -> float:
        return _perplexity([new for _, new in drawn]) - _perplexity([old for old, _ in drawn])

    samples, seed = config.bootstrap_samples, config.seed
    right = [(float(new.right - old.right), float(old.tokens)) for old, new in pairs]
    return [
        _row(
            "perplexity",
            _perplexity(before),
            _perplexity(after),
            bootstrap_interval(pairs, gap, samples=samples, seed=seed),
        ),
        _row(
            "token accuracy",
            _share([(one.right, one.tokens) for one in before]),
            _share([(one.right, one.tokens) for one in after]),
            bootstrap_ratio(right, samples=samples, seed=seed),
        ),
    ]


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


def weights_bytes(folder: Path) -> int:
    """Bytes of a model directory's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main(run: RunDir) -> None:
    config = run.config(QuantiseConfig)
    group_size = config.group_size if config.scheme == "w4a16" else 0
    base = run.input("base")
    facts = model_directory_check(base)
    if facts.role != "causal":
        raise RefusedError(f"a {facts.architecture} scores answers: only policies are quantised")
    tokenizer = tokenizer_load(base)
    limit = min(config.max_tokens, facts.context_tokens)
    lessons = lessons_unseen(run, config, tokenizer, limit)
    groups: list[RankedGroup] = []
    if run.has_input("rankings"):
        ranked = rankings_load(
            run.input("rankings") / "rankings.jsonl", tokenizer, max_tokens=limit
        )
        groups = [one for split in _UNSEEN for one in ranked.of_split(split)]
        if len({one.prompt_id for one in groups}) < 2:
            raise RefusedError("the rankings hold fewer than two prompts of an unseen split")

    run.progress(0, 3, "steps")
    folder = run.output("model")
    model = model_load(base, dtype="bfloat16")
    layers = model_quantise(model, scheme=config.scheme, group_size=group_size)
    quantised_save(model, tokenizer, folder, scheme=config.scheme, group_size=group_size)
    del model
    own = model_directory_check(folder, quantised=True)
    run.progress(1, 3, "steps")

    parent = model_load(base, dtype="float32")
    attach(parent)
    before = conversations_hear(parent, lessons, config.budget_tokens)
    chosen = choices_right(parent, groups, config.budget_tokens)
    del parent
    run.progress(2, 3, "steps")
    served = quantised_load(folder, dtype="float32")
    attach(served)
    after = conversations_hear(served, lessons, config.budget_tokens)
    if not all(math.isfinite(one.loss_sum) for one in after):
        raise RefusedError("the quantised model's loss is not finite: nothing is published")
    table = beside(before, after, config)
    if groups:
        still = choices_right(served, groups, config.budget_tokens)
        gaps = [(new - old, pairs) for (old, pairs), (new, _) in zip(chosen, still, strict=True)]
        difference = bootstrap_ratio(gaps, samples=config.bootstrap_samples, seed=config.seed)
        table.append(_row("preference accuracy", _share(chosen), _share(still), difference))
    hearing = DistillConfig(budget_tokens=config.budget_tokens)
    asked = Teacher(ModelInput(base), hearing, vocabulary_check(tokenizer, tokenizer))
    divergence = divergences_hear(served, lessons, asked, hearing)
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
            "conversations": len(before),
            "divergence": _share([(nats, float(tokens)) for nats, tokens in divergence]),
            "beside_parent": table,
        },
    )


if __name__ == "__main__":
    program_run(main)

"""Which of a run's figures come first: what the method is about, then the rest, then the machine's.

Programs name their figures as they like; results are kept with their names sorted. Plain Python.
"""

import re
from collections.abc import Iterable, Mapping

# Words of a name, the first that matter most.
_FIRST = ("loss", "accuracy", "win", "scores", "score", "reward", "margin", "kl", "divergence")
_FIRST_TOO = ("perplexity", "kept", "documents")
_PLURALS = {"accuracies": "accuracy", "rewards": "reward", "margins": "margin"}  # as trainers have
_LAST = {"lr", "norm", "per", "seconds", "load", "mfu", "bytes", "flops", "epoch", "memory"}
# What a table's rows are counted or called by.
_AXES = ("step", "epoch", "round", "n", "place", "figure", "source", "name", "rule", "language")
_SIDES = ("", "before", "after", "low", "high")

# By program, the figures its page begins with: those that are there, three at most.
_HEADLINES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("sft", "distill"),
        ("held_out.loss", "held_out.loss_after", "validation.loss", "validation.loss_after"),
    ),
    **dict.fromkeys(
        ("dpo", "kto", "orpo"),
        (
            *("held_out.accuracy", "held_out.accuracy_after", "held_out.loss_after"),
            *("validation.accuracy", "validation.accuracy_after", "loss_last_steps"),
        ),
    ),
    "reward": ("held_out.accuracy", "held_out.pairs", "validation.accuracy", "train.pairs"),
    "reward_ensemble": ("held_out.accuracy", "accuracy", "members"),
    "rejection": ("mean_score_kept", "mean_score_all", "kept"),
    "evaluate": ("win_rate", "reward_difference", "kl_per_answer_nats"),
    "generate": ("answers", "finished_share", "tokens_per_s"),
    "pretrain": ("loss", "tokens", "tokens_per_s"),
    "clean_corpus": ("documents", "documents_before", "words"),
    "import_corpus": ("documents", "words", "characters"),
    "tokenise": ("tokens", "documents"),
    "train_tokenizer": ("vocabulary", "algorithm"),
    "quantise": ("divergence", "weights_bytes", "parent_weights_bytes"),
    "export_gguf": ("divergence", "perplexity", "parent_perplexity"),
    "import_model": ("parameters", "dtype", "packaged_bits"),
    **dict.fromkeys(
        ("ppo", "rloo", "grpo", "online_dpo"),
        (
            "held_out.after",
            "held_out.difference",
            "last_steps.objective/scores",
            "last_steps.objective/kl",
            "steps",
        ),
    ),
}
_SHOWN = 3


def figure_order(name: str) -> tuple[int, int, str]:
    """What a figure is sorted by: "loss" before "tokens" before "lr"."""
    words = [_PLURALS.get(word, word) for word in re.split(r"[^a-z0-9]+", name.lower())]
    for place, word in enumerate((*_FIRST, *_FIRST_TOO)):
        if word in words:
            return 0, place, name
    return (2 if _LAST.intersection(words) else 1), 0, name


def column_order(name: str, *, is_text: bool) -> tuple[int, int, int, str, int]:
    """The same of a table's columns: what counts or names its rows first, and beside a figure what
    it was before and after, and its bounds."""
    stem, _, side = name.rpartition("_")
    if side not in _SIDES or not stem:
        stem, side = name, ""
    if name in _AXES:
        return 0, _AXES.index(name), 0, "", 0
    group, place, _ = figure_order(stem)
    return (1 if is_text else 2), group, place, stem, _SIDES.index(side)


def headlines(program: str, names: Iterable[str]) -> list[str]:
    """The names, of a result's own, that its page begins with. A headline of several parts, such
    as "win_rate", is the first of them."""
    known = list(names)
    found: list[str] = []
    for wanted in _HEADLINES.get(program, ()):
        parts = (name for name in known if name == wanted or name.startswith(f"{wanted}."))
        first = next(parts, None)
        if first is not None and first not in found:
            found.append(first)
    return found[:_SHOWN]

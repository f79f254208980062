"""Forward passes over many shared rows: kept as they come, so that a killed run goes on.

Legend: K answers of a prompt, S answer tokens of a row, V vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from alignment.ml.shared_prefix import Row, answer_scores, attach, hidden_states
from alignment.ml.shared_prefix.support import base_model
from modelhub.ml.adapter import ModelInput, model_input_load
from modelhub.ml.records import json_canonical, json_strict
from modelhub.ml.rundir import NotFinite, RunDir

_CHECKPOINT_EVERY_S = 10.0
_CHUNK_TOKENS = 256  # answer tokens whose logits exist at once
_FILE = "rows.json"


def rows_compute(run: RunDir, rows: Sequence[Row], compute: Callable[[int, Row], Any]) -> list[Any]:
    """`compute(number, row)` of every row, JSON values, in the rows' order.

    Every few seconds what is there is checkpointed; rows that a checkpoint holds are not computed
    again. Rows must be the same whenever the run is started, as `pack` of the same groups makes
    them.
    """
    found = run.checkpoint_latest()
    values = [] if found is None else list(json_strict((found[1] / _FILE).read_bytes()))
    if values:
        print(f"going on after {len(values)} of {len(rows)} rows", flush=True)
    run.progress(len(values), len(rows), "rows")
    kept_at = time.monotonic()
    while len(values) < len(rows):
        row, started = rows[len(values)], time.monotonic()
        with torch.inference_mode():
            values.append(compute(len(values), row))
        seconds = time.monotonic() - started
        run.metric(len(values), {"tokens_per_s": row.tokens / seconds})
        run.progress(len(values), len(rows), "rows")
        if time.monotonic() - kept_at > _CHECKPOINT_EVERY_S and len(values) < len(rows):
            text = json_canonical(values)
            run.checkpoint_publish(
                len(values), lambda folder, text=text: (folder / _FILE).write_text(text)
            )
            kept_at = time.monotonic()
    return values


class Scorer:
    """A model ready to read rows, its products computed in `dtype`."""

    def __init__(self, given: Path | ModelInput, *, role: str, dtype: str) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        given = given if isinstance(given, ModelInput) else ModelInput(given)
        self.model = model_input_load(given, dtype="float32", role=role).to(self.device)
        self._dtype = dtype
        attach(self.model)

    def precision(self) -> Any:
        """The context in which the model's products have the asked dtype."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._dtype == "bfloat16")

    def scores(self, row: Row) -> list[list[float]]:
        """The reward model's score of each answer, by group. Raises NotFinite for NaN."""
        with self.precision():
            found = answer_scores(self.model, row)
        for group, scores_K in zip(row.indices, found, strict=True):
            if not torch.isfinite(scores_K).all():
                raise NotFinite(f"the reward model's score of an answer of group {group} is NaN")
        return [scores_K.tolist() for scores_K in found]


@dataclass(frozen=True)
class Divergence:
    """How two policies see one answer, at temperature 1: sums over its tokens, in nats."""

    logprob_after: float
    logprob_before: float
    kl: float  # Σ_t KL(after ‖ before) of the distributions of token t, given those before it


def divergences(after: Scorer, before: Scorer, row: Row) -> list[list[Divergence]]:
    """The divergence of each answer, by group.

    `kl` sums over the whole vocabulary at every token rather than taking the token that came, so it
    is never negative, and it varies less from answer to answer than the log-ratio; on answers of
    `after` both have the same mean, by the chain rule.

    Tokens that one policy has and the other has not, as an end of session that fine-tuning added,
    are left out of both: what answers are made of, both have. Raises NotFinite for NaN.
    """
    source_S, target_S = (place.to(after.device) for place in row.answer_places())
    hidden, heads = [], []
    for scorer in (after, before):
        with scorer.precision():
            hidden.append(hidden_states(scorer.model, row))
        heads.append(base_model(scorer.model).get_output_embeddings())
    shared = min(head.weight.shape[0] for head in heads)
    parts: list[torch.Tensor] = []
    for source, target in zip(
        source_S.split(_CHUNK_TOKENS), target_S.split(_CHUNK_TOKENS), strict=True
    ):
        logs = []
        for scorer, head, hidden_TC in zip((after, before), heads, hidden, strict=True):
            with scorer.precision():
                logits_SV = head(hidden_TC[source])[:, :shared]
            logs.append(F.log_softmax(logits_SV.float(), dim=-1))
        after_SV, before_SV = logs
        kl_S = (after_SV.exp() * (after_SV - before_SV)).sum(-1)
        chosen = [log.gather(-1, target[:, None])[:, 0] for log in logs]
        parts.append(torch.stack([*chosen, kl_S]))
    found_3S = torch.cat(parts, dim=1).double().cpu()
    if not torch.isfinite(found_3S).all():
        raise NotFinite("a log-probability is not finite")
    lengths = [len(answer) for group in row.groups for answer in group.answers]
    each = iter(found_3S.split(lengths, dim=1))
    return [
        [Divergence(*next(each).sum(1).tolist()) for _ in group.answers] for group in row.groups
    ]

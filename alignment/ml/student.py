"""What a student says beside its teacher: divergence and loss, token by token and by lesson.

Legend: S learnt tokens of a row, C width of a hidden state, V vocabulary, O outcomes.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignment.intervals import bootstrap_ratio
from alignment.ml.configs import DistillConfig
from alignment.ml.conversations import Lesson, taught_places
from alignment.ml.losses import token_divergence
from alignment.ml.shared_prefix import Row, hidden_states, pack
from alignment.ml.shared_prefix.support import base_model
from alignment.ml.teacher import Said, Teacher, TeacherKept

_CHUNK_TOKENS = 512  # learnt tokens whose logits exist at once

AnyTeacher = Teacher | TeacherKept


def row_losses(
    model: Any, row: Row, lessons: Sequence[Lesson], said: Said | None, mixture: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each learnt token of a row: (divergence from the teacher, −log p of the token, whether it
    was the likeliest), (S,) each, nats, float32.

    lessons: of the row's groups, in its order. said: the teacher's of the same; without one the
    divergence is 0. A chunk's logits are computed again in backward rather than kept.
    """
    hidden_TC = hidden_states(model, row)
    head = base_model(model).get_output_embeddings()
    taught = torch.tensor(taught_places(lessons))
    source_S, target_S = (place[taught].to(hidden_TC.device) for place in row.answer_places())
    targets = target_S.split(_CHUNK_TOKENS)
    chunks = [
        checkpoint(
            _chunk_losses, head, hidden_TC[source], target, part, mixture, use_reentrant=False
        )
        for source, target, part in zip(
            source_S.split(_CHUNK_TOKENS),
            targets,
            [None] * len(targets) if said is None else said.split(_CHUNK_TOKENS),
            strict=True,
        )
    ]
    divergence, label, right = zip(*chunks, strict=True)
    return torch.cat(divergence), torch.cat(label), torch.cat(right)


def _chunk_losses(
    head: nn.Module, hidden_SC: Tensor, target_S: Tensor, said: Said | None, mixture: float
) -> tuple[Tensor, Tensor, Tensor]:
    logits_SV = head(hidden_SC).float()
    label_S = F.cross_entropy(logits_SV, target_S, reduction="none")
    # amax, for argmax over a vocabulary is slow on the CPU.
    right_S = logits_SV.gather(-1, target_S[:, None])[:, 0] == logits_SV.amax(-1)
    if said is None:
        return torch.zeros_like(label_S), label_S, right_S
    student_SO, teacher_SO = said.outcomes(logits_SV)
    return token_divergence(student_SO, teacher_SO, beta=mixture), label_S, right_S


@torch.no_grad()
def divergences_hear(
    model: Any, lessons: Sequence[Lesson], teacher: AnyTeacher, config: DistillConfig
) -> list[tuple[float, int]]:
    """(divergence from the teacher, nats, summed over its learnt tokens; how many) a lesson."""
    training = model.training
    model.eval()
    heard: dict[int, tuple[float, int]] = {}
    for row in pack([lesson.group for lesson in lessons], config.budget_tokens):
        own = [lessons[index] for index in row.indices]
        found_S, _, _ = row_losses(model, row, own, teacher.row_said(row, own), config.mixture)
        sizes = [lesson.taught_tokens for lesson in own]
        for index, part in zip(row.indices, found_S.double().cpu().split(sizes), strict=True):
            heard[index] = (float(part.sum()), len(part))
    model.train(training)
    return [heard[index] for index in range(len(lessons))]


def divergences_compare(
    before: Sequence[tuple[float, int]],
    after: Sequence[tuple[float, int]],
    config: DistillConfig,
) -> dict[str, Any]:
    """Before and after on the same lessons: nats per token, and their difference with its 95 %
    bootstrap interval over lessons, each compared with itself."""
    pairs = list(zip(before, after, strict=True))
    parts = [(new - old, float(tokens)) for (old, tokens), (new, _) in pairs]
    difference = bootstrap_ratio(parts, samples=config.bootstrap_samples, seed=config.seed)
    return {
        "divergence_before": divergence_mean(before),
        "divergence_after": divergence_mean(after),
        "divergence_difference": asdict(difference),
    }


def divergence_mean(heard: Sequence[tuple[float, int]]) -> float:
    """Nats a token, of (nats, tokens) a lesson."""
    return sum(nats for nats, _ in heard) / sum(tokens for _, tokens in heard)

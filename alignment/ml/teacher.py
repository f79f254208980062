"""The teacher of a distillation: what it says at every place a student learns.

Asked at every step it gives its states at the row's learnt places, from which a chunk's logits are
made when they are needed. Asked once, before the first step, it gives its K likeliest tokens a
place with their log-probabilities; how likely all the others are together is what is left of 1.

Both speak of tokens by their ids, so the two vocabularies must be one (`vocabulary_check`).

Legend: S learnt tokens, C width of a hidden state, V vocabulary, K likeliest tokens, O outcomes.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignment.ml.configs import DistillConfig
from alignment.ml.conversations import Lesson, taught_places
from alignment.ml.losses import outcomes_top, rest_append
from alignment.ml.shared_prefix import Row, attach, hidden_states, pack
from alignment.ml.shared_prefix.support import base_model
from alignment.ml.validation import precision
from modelhub.ml.adapter import ModelInput, model_input_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import IntegrityError, manifest_verify, manifest_write
from modelhub.ml.parallel import is_first
from modelhub.ml.rundir import RunDir

_CHUNK_TOKENS = 512  # learnt tokens whose logits exist at once


@dataclass(frozen=True)
class SaidNow:
    """What a teacher that is asked says at some learnt places, still as its states."""

    states_SC: Tensor
    head: nn.Module
    temperature: float
    vocabulary: int  # ids from here on are padding of an embedding, and no tokens

    def split(self, size: int) -> list["SaidNow"]:
        """The same in pieces of `size` places."""
        return [replace(self, states_SC=part) for part in self.states_SC.split(size)]

    @torch.no_grad()
    def logprobs(self) -> Tensor:
        """log p of the whole vocabulary, (S, V)."""
        return logprobs_at(self.head(self.states_SC).float(), self.temperature, self.vocabulary)

    def outcomes(self, student_SV: Tensor) -> tuple[Tensor, Tensor]:
        """log p of the same outcomes, student's and teacher's, (S, O). student_SV: its logits."""
        return logprobs_at(student_SV, self.temperature, self.vocabulary), self.logprobs()


@dataclass(frozen=True)
class SaidBefore:
    """What was kept of a teacher at some learnt places: the outcomes are K tokens and the rest."""

    ids_SK: Tensor
    logprobs_SK: Tensor
    temperature: float
    vocabulary: int

    def split(self, size: int) -> list["SaidBefore"]:
        """The same in pieces of `size` places."""
        parts = zip(self.ids_SK.split(size), self.logprobs_SK.split(size), strict=True)
        return [replace(self, ids_SK=ids, logprobs_SK=logprobs) for ids, logprobs in parts]

    def outcomes(self, student_SV: Tensor) -> tuple[Tensor, Tensor]:
        """As `SaidNow.outcomes`."""
        own_SV = logprobs_at(student_SV, self.temperature, self.vocabulary)
        return outcomes_top(own_SV, self.ids_SK.long()), rest_append(self.logprobs_SK)


Said = SaidNow | SaidBefore


def logprobs_at(logits_SV: Tensor, temperature: float, vocabulary: int) -> Tensor:
    """log p of the vocabulary's tokens at a temperature."""
    return torch.log_softmax(logits_SV[..., :vocabulary] / temperature, dim=-1)


class Teacher:
    """A teacher that is asked at every step. It never learns."""

    def __init__(self, given: ModelInput, config: DistillConfig, vocabulary: int) -> None:
        self._config, self._vocabulary = config, vocabulary
        # Its weights are only read: in bfloat16 products they may be bfloat16 themselves.
        self._model = model_input_load(given, dtype=config.dtype)
        self._model.requires_grad_(False)
        attach(self._model)

    def to(self, device: torch.device) -> "Teacher":
        self._model.to(device)
        return self

    @torch.no_grad()
    def row_said(self, row: Row, lessons: Sequence[Lesson]) -> SaidNow:
        """lessons: of the row's groups, in its order."""
        with precision(self._config):
            states_TC = hidden_states(self._model, row)
        source_S = row.answer_places()[0][torch.tensor(taught_places(lessons))]
        return SaidNow(
            states_TC[source_S.to(states_TC.device)],
            base_model(self._model).get_output_embeddings(),
            self._config.temperature,
            self._vocabulary,
        )


class TeacherKept:
    """What was kept of a teacher: its likeliest tokens at the learnt places of its lessons."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        kept: Mapping[str, Tensor],
        config: DistillConfig,
        size: int,
    ) -> None:
        """kept: `ids` and `logprobs`, (N, K) over all lessons' places in order. size: V."""
        self._ids_NK, self._logprobs_NK = kept["ids"], kept["logprobs"]
        self._config, self._vocabulary = config, size
        self._device = torch.device("cpu")
        stops = list(accumulate(lesson.taught_tokens for lesson in lessons))
        # A lesson is known by being the same object: two may hold the same words.
        self._places = {
            id(lesson): slice(stop - lesson.taught_tokens, stop)
            for lesson, stop in zip(lessons, stops, strict=True)
        }

    def to(self, device: torch.device) -> "TeacherKept":
        self._device = device
        return self

    def row_said(self, row: Row, lessons: Sequence[Lesson]) -> SaidBefore:
        """As `Teacher.row_said`."""
        places = [self._places[id(lesson)] for lesson in lessons]
        return SaidBefore(
            torch.cat([self._ids_NK[one] for one in places]).to(self._device),
            torch.cat([self._logprobs_NK[one] for one in places]).to(self._device),
            self._config.temperature,
            self._vocabulary,
        )


def teacher_keep(
    run: RunDir,
    teacher: Teacher,
    lessons: Sequence[Lesson],
    config: DistillConfig,
    vocabulary: int,
) -> TeacherKept:
    """Ask the teacher once for every lesson, or read what an earlier attempt of the run has kept.

    Of several processes each asks for itself: it will need any lesson.
    """
    folder = run.path / "checkpoints" / "teacher"
    kept = _kept_load(folder)
    if kept is None:
        kept = _teacher_ask(run, teacher, lessons, config)
        if is_first():
            _kept_save(kept, folder)
    return TeacherKept(lessons, kept, config, vocabulary)


def _teacher_ask(
    run: RunDir, teacher: Teacher, lessons: Sequence[Lesson], config: DistillConfig
) -> dict[str, Tensor]:
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for row in pack([lesson.group for lesson in lessons], config.budget_tokens):
        own = [lessons[index] for index in row.indices]
        ids, logprobs = [], []
        for said in teacher.row_said(row, own).split(_CHUNK_TOKENS):
            top = said.logprobs().topk(config.teacher_top_k, dim=-1)
            ids.append(top.indices.int().cpu())
            logprobs.append(top.values.cpu())
        sizes = [lesson.taught_tokens for lesson in own]
        parts = zip(torch.cat(ids).split(sizes), torch.cat(logprobs).split(sizes), strict=True)
        found |= dict(zip(row.indices, parts, strict=True))
        run.progress(len(found), len(lessons), "lessons the teacher has read")
    in_order = [found[index] for index in range(len(lessons))]
    return {
        "ids": torch.cat([ids for ids, _ in in_order]),
        "logprobs": torch.cat([logprobs for _, logprobs in in_order]),
    }


def _kept_save(kept: Mapping[str, Tensor], folder: Path) -> None:
    temporary = folder.with_name(f".tmp-teacher-{os.getpid()}")
    temporary.mkdir()
    save_file(dict(kept), temporary / "kept.safetensors")
    manifest_write(temporary)
    if folder.exists():
        shutil.rmtree(folder)  # of which a byte had changed
    temporary.rename(folder)


def _kept_load(folder: Path) -> dict[str, Tensor] | None:
    try:
        manifest_verify(folder)
    except IntegrityError:
        return None
    return load_file(folder / "kept.safetensors")


def vocabulary_check(student: Any, teacher: Any) -> int:
    """How many ids the two tokenizers share, which is all of them.

    Raises RefusedError naming the first id that stands for another token: what the teacher says of
    it would be taken for something else.
    """
    own, other = ({i: token for token, i in one.get_vocab().items()} for one in (student, teacher))
    for i in sorted(own.keys() | other.keys()):
        if own.get(i) != other.get(i):
            raise RefusedError(
                f"the teacher's vocabulary is not the student's: id {i} is {_named(own.get(i))} to "
                f"the student and {_named(other.get(i))} to the teacher. Distil on the teacher's "
                "answers instead (logits_share 0, without a teacher)"
            )
    return max(own) + 1


def _named(token: str | None) -> str:
    return "no token" if token is None else repr(token)

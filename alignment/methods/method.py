"""What a method is, and the inputs that several methods have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelhub.ml.configs import ProgramConfig

POLICIES = ("base", "policy")
SAMPLERS = (*POLICIES, "adapter")  # an adapter is read with its base, which its version names


@dataclass(frozen=True, kw_only=True)
class Input:
    """Something a method reads: a model version of a role, or rows of a kind.

    Rows are a frozen dataset, what an earlier run read or wrote, or rows of a project. With
    `is_many` any number of them is read, as role_1, role_2, …
    """

    role: str
    title: str
    versions: tuple[str, ...] = ()  # roles of model versions that fit
    kinds: tuple[str, ...] = ()  # kinds of artifacts that fit
    artifact: str = ""  # kind of those versions' artifacts, where not any fits
    is_required: bool = True
    is_many: bool = False
    of_project: tuple[str, ...] = ()  # rows of a project, written down when the run is launched
    task_kinds: tuple[str, ...] = ()  # of those rows, where they are tasks
    is_word_list: bool = False  # corpora that are lists of words fit, which no other input offers
    is_learnt: bool = False  # prompts that come into training: none that is held out may be there


@dataclass(frozen=True)
class Preset:
    """Settings to start from, and where they are from."""

    name: str
    title: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to use labels. Its name is its program's."""

    config: type[ProgramConfig]
    title: str
    about: str  # one sentence
    docs: str  # page below docs/
    inputs: tuple[Input, ...]
    registers: str = ""  # role of the version its success makes; empty: rows alone
    output: str = "model"  # role of the output that becomes the version
    parent: str = "base"  # role of the input that the version comes from
    presets: tuple[Preset, ...] = field(default=())
    takes_processes: bool = False  # trains on several processes (modelhub/ml/parallel.py)

    @property
    def name(self) -> str:
        return self.config.PROGRAM

    @property
    def docs_page(self) -> str:
        """Its page in the documentation that the site shows."""
        return self.docs.removesuffix(".md")

    def input(self, role: str) -> Input | None:
        """The input a role belongs to: its own, or role_3 of one that may be many."""
        for one in self.inputs:
            if one.role == role:
                return None if one.is_many else one
            number = role.removeprefix(f"{one.role}_")
            if one.is_many and number != role and number.isdecimal():
                return one
        return None


BASE = Input(role="base", title="Start from", versions=POLICIES)
REWARD = Input(role="reward", title="Reward model", versions=("reward",))
PROMPTS = Input(
    role="prompts", title="Prompts", kinds=("prompts",), of_project=("train",), is_learnt=True
)
# Prompts that a model answers, to be learnt from or not.
ASKED = Input(
    role="prompts",
    title="Prompts",
    kinds=("prompts",),
    of_project=("train", "validation", "held_out"),
)
RANKINGS = Input(role="rankings", title="Rankings", kinds=("rankings",))
EVALUATION_PROMPTS = Input(
    role="evaluation_prompts",
    title="Prompts to evaluate on",
    kinds=("prompts",),
    is_required=False,
    of_project=("held_out", "validation"),
)
REFERENCE = Input(
    role="reference", title="Policy that KL is counted from", versions=POLICIES, is_required=False
)
REFERENCES = Input(
    role="references",
    title="Right answers, for a checker",
    kinds=("references",),
    is_required=False,
)
# What scores the answers that a method draws: a model, two of them, or a checker.
REWARDED = (
    Input(role="reward", title="Reward model", versions=("reward",), is_required=False),
    Input(role="safety", title="Safety reward model", versions=("reward",), is_required=False),
    REFERENCES,
)

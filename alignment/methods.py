"""The methods, each in one table: what it reads, what comes of it, how to set it.

A page, the API and a command launch every method from here. A new one is a configuration class
(alignment/ml/configs/), its program (settings.RUN_PROGRAMS) and an entry of METHODS. Plain Python,
standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alignment.ml.configs import (
    ContextDistillationConfig,
    DistillConfig,
    DpoConfig,
    EnsembleConfig,
    EvaluateConfig,
    GhostAttentionConfig,
    GrpoConfig,
    JudgeConfig,
    KtoConfig,
    MergeAdapterConfig,
    OnlineDpoConfig,
    OrpoConfig,
    PpoConfig,
    QuantiseConfig,
    RejectionConfig,
    RewardConfig,
    RlooConfig,
    SelfInstructConfig,
    SftConfig,
)
from alignment.ml.configs.grpo import PRESETS as GRPO_PRESETS
from alignment.ml.configs.online_dpo import PRESETS as ONLINE_DPO_PRESETS
from alignment.ml.configs.ppo import PRESETS as PPO_PRESETS
from alignment.ml.configs.rloo import PRESETS as RLOO_PRESETS
from modelhub.ml.configs import GenerateConfig, ProgramConfig
from modelhub.ml.corpora.configs import CleanCorpusConfig
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.tokenising.configs import TokeniseConfig, TrainTokenizerConfig

POLICIES = ("base", "policy")
SAMPLERS = (*POLICIES, "adapter")  # an adapter is read with its base, which its version names


@dataclass(frozen=True, kw_only=True)
class Input:
    """Something a method reads: a model version of a role, or rows of a kind.

    Rows are a frozen dataset, or what an earlier run read or wrote. With `is_many` any number of
    them is read, as role_1, role_2, …
    """

    role: str
    title: str
    versions: tuple[str, ...] = ()  # roles of model versions that fit
    kinds: tuple[str, ...] = ()  # kinds of artifacts that fit
    is_required: bool = True
    is_many: bool = False
    of_project: tuple[str, ...] = ()  # rows of a project, written down when the run is launched


@dataclass(frozen=True, kw_only=True)
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

    def input(self, role: str) -> Input | None:
        """The input a role belongs to: its own, or role_3 of one that may be many."""
        for one in self.inputs:
            if one.role == role:
                return None if one.is_many else one
            number = role.removeprefix(f"{one.role}_")
            if one.is_many and number != role and number.isdecimal():
                return one
        return None


_BASE = Input(role="base", title="Start from", versions=POLICIES)
_REWARD = Input(role="reward", title="Reward model", versions=("reward",))
_PROMPTS = Input(role="prompts", title="Prompts", kinds=("prompts",))
_RANKINGS = Input(role="rankings", title="Rankings", kinds=("rankings",))
_EVALUATION_PROMPTS = Input(
    role="evaluation_prompts",
    title="Prompts to evaluate on",
    kinds=("prompts",),
    is_required=False,
)
_REFERENCE = Input(
    role="reference", title="Policy that KL is counted from", versions=POLICIES, is_required=False
)
# What scores the answers that a method draws: a model, two of them, or a checker.
_REWARDED = (
    Input(role="reward", title="Reward model", versions=("reward",), is_required=False),
    Input(role="safety", title="Safety reward model", versions=("reward",), is_required=False),
    Input(
        role="references",
        title="Right answers, for a checker",
        kinds=("references",),
        is_required=False,
    ),
)

_METHODS = (
    Method(
        config=CleanCorpusConfig,
        title="Cleaning a corpus",
        about="Rules, duplicates, contamination and personal data: what is left, and a report.",
        docs="pretraining.md",
        inputs=(
            Input(role="corpus", title="Corpus", kinds=("corpus",)),
            Input(
                role="known",
                title="Corpora already had: what repeats them goes",
                kinds=("corpus",),
                is_required=False,
                is_many=True,
            ),
            Input(
                role="evaluation",
                title="Evaluation sets: what shares words with them goes",
                kinds=("prompts", "corpus", "references"),
                is_required=False,
                is_many=True,
            ),
            Input(
                role="held_out",
                title="Held-out prompts of projects",
                of_project=("held_out",),
                is_required=False,
                is_many=True,
            ),
        ),
        presets=(
            Preset(
                name="gopher",
                title="Gopher (arXiv:2112.11446, A.1.1)",
                settings={"families": ["gopher"], "near_similarity_min": 0.8},
            ),
            Preset(
                name="duplicates",
                title="Duplicates and contamination alone",
                settings={"families": [], "scrub_pii": False},
            ),
        ),
    ),
    Method(
        config=TrainTokenizerConfig,
        title="Training a tokenizer",
        about="Byte-level BPE, WordPiece or unigram, on a mixture of corpora, with its fertility.",
        docs="pretraining.md",
        inputs=(
            Input(role="corpus", title="Corpora", kinds=("corpus",), is_many=True),
            Input(
                role="reference",
                title="Tokenizer to compare with",
                kinds=("tokenizer", "model"),
                is_required=False,
            ),
        ),
        presets=(
            Preset(
                name="novel",
                title="A novel: byte-level BPE of 8,192",
                settings={"vocabulary": 8192},
            ),
            Preset(
                name="bert",
                title="BERT (arXiv:1810.04805): WordPiece of 30,522, with a mask",
                settings={
                    "algorithm": "wordpiece",
                    "vocabulary": 30_522,
                    "mask": True,
                    "chat": False,
                },
            ),
        ),
    ),
    Method(
        config=TokeniseConfig,
        title="Tokenising a corpus",
        about="A token set of a corpus: what pretraining reads.",
        docs="pretraining.md",
        inputs=(
            Input(role="corpus", title="Corpus", kinds=("corpus",)),
            Input(role="tokenizer", title="Tokenizer", kinds=("tokenizer", "model")),
        ),
    ),
    Method(
        config=PretrainConfig,
        title="Pretraining",
        about="A base model from tokens, or one that goes on with the texts of a domain.",
        docs="pretraining.md",
        inputs=(
            Input(
                role="base",
                title="Go on from (a new model needs none)",
                versions=POLICIES,
                is_required=False,
            ),
            Input(
                role="tokenizer",
                title="Tokenizer (of a new model)",
                versions=POLICIES,
                kinds=("tokenizer",),
                is_required=False,
            ),
            Input(role="tokens", title="Tokens", kinds=("tokens",), is_many=True),
            Input(
                role="replay",
                title="General tokens beside a domain's",
                kinds=("tokens",),
                is_required=False,
                is_many=True,
            ),
        ),
        registers="base",
        takes_processes=True,
        presets=(
            Preset(
                name="novel",
                title="A novel on a laptop, in minutes",
                settings=PretrainConfig.PRESETS["novel"],
            ),
            Preset(
                name="gpt2",
                title="GPT-2's smallest (arXiv:2005.14165, table 2.1)",
                settings=PretrainConfig.PRESETS["gpt2-124m"],
            ),
            Preset(
                name="llama",
                title="LLaMA 7B (arXiv:2302.13971, 2.3)",
                settings=PretrainConfig.PRESETS["llama-7b"],
            ),
        ),
    ),
    Method(
        config=SftConfig,
        title="Supervised fine-tuning",
        about="The policy learns to write the demonstrations.",
        docs="algorithms/sft.md",
        inputs=(
            Input(role="base", title="Start from", versions=SAMPLERS),
            Input(
                role="demonstrations",
                title="Demonstrations",
                kinds=("demonstrations",),
                is_many=True,
            ),
        ),
        registers="policy",
        takes_processes=True,
        presets=(
            Preset(
                name="llama2",
                title="Llama 2 (arXiv:2307.09288, 3.1)",
                settings=SftConfig.PRESETS["llama-2"],
            ),
            Preset(
                name="instructgpt",
                title="InstructGPT (arXiv:2203.02155, C.1)",
                settings=SftConfig.PRESETS["instructgpt"],
            ),
        ),
    ),
    Method(
        config=RewardConfig,
        title="Reward model",
        about="A score for an answer, learnt from people's rankings.",
        docs="algorithms/reward-model.md",
        inputs=(
            Input(role="base", title="Start from", versions=(*POLICIES, "reward")),
            _RANKINGS,
        ),
        registers="reward",
        takes_processes=True,
        presets=(
            Preset(
                name="llama2",
                title="Llama 2 (arXiv:2307.09288, 3.2.2)",
                settings={
                    "epochs": 1,
                    "lr": 1e-5,
                    "warmup_share": 0.03,
                    "lr_final_share": 0.1,
                    "rankings_per_step": 512,
                },
            ),
            Preset(
                name="instructgpt",
                title="InstructGPT (arXiv:2203.02155, C.2)",
                settings={
                    "epochs": 1,
                    "lr": 9e-6,
                    "warmup_share": 0.0,
                    "lr_final_share": 0.1,
                    "rankings_per_step": 64,
                },
            ),
        ),
    ),
    Method(
        config=EnsembleConfig,
        title="Reward models as one",
        about="Several reward models score held-out rankings together, or become one.",
        docs="algorithms/reward-model.md",
        inputs=(
            Input(role="reward", title="Reward models", versions=("reward",), is_many=True),
            _RANKINGS,
        ),
    ),
    Method(
        config=PpoConfig,
        title="PPO",
        about="The policy learns to write what a reward model likes.",
        docs="algorithms/ppo.md",
        inputs=(
            _BASE,
            _PROMPTS,
            *_REWARDED,
            _REFERENCE,
            Input(
                role="pretraining",
                title="Examples to learn beside",
                kinds=("demonstrations",),
                is_required=False,
            ),
            _EVALUATION_PROMPTS,
        ),
        registers="policy",
        presets=(
            Preset(
                name="instructgpt",
                title="InstructGPT (arXiv:2203.02155, C.4)",
                settings=PPO_PRESETS["InstructGPT"],
            ),
            Preset(
                name="llama2",
                title="Llama 2 (arXiv:2307.09288, 3.2.2, 3.4)",
                settings=PPO_PRESETS["Llama 2"],
            ),
            Preset(
                name="summarize",
                title="Summarize from feedback (arXiv:2403.17031)",
                settings=PPO_PRESETS["summarize from feedback"],
            ),
        ),
    ),
    Method(
        config=RlooConfig,
        title="RLOO",
        about="The policy learns to write what is rewarded above its other answers to the prompt.",
        docs="algorithms/rloo.md",
        inputs=(_BASE, _PROMPTS, *_REWARDED, _REFERENCE, _EVALUATION_PROMPTS),
        registers="policy",
        presets=(
            Preset(
                name="rloo",
                title="RLOO (arXiv:2402.14740)",
                settings=RLOO_PRESETS["RLOO"],
            ),
        ),
    ),
    Method(
        config=GrpoConfig,
        title="GRPO",
        about="As RLOO, token by token and clipped, rewards scaled within the prompt.",
        docs="algorithms/grpo.md",
        inputs=(_BASE, _PROMPTS, *_REWARDED, _REFERENCE, _EVALUATION_PROMPTS),
        registers="policy",
        presets=(
            Preset(
                name="grpo",
                title="GRPO (arXiv:2402.03300, 4.2)",
                settings=GRPO_PRESETS["GRPO"],
            ),
            Preset(
                name="dr_grpo",
                title="Dr. GRPO (arXiv:2503.20783)",
                settings=GRPO_PRESETS["Dr. GRPO"],
            ),
            Preset(
                name="dapo",
                title="DAPO (arXiv:2503.14476)",
                settings=GRPO_PRESETS["DAPO"],
            ),
        ),
    ),
    Method(
        config=OnlineDpoConfig,
        title="Online DPO",
        about="DPO on pairs of the policy's own answers, judged as it trains.",
        docs="algorithms/online-dpo.md",
        inputs=(_BASE, _PROMPTS, *_REWARDED, _REFERENCE, _EVALUATION_PROMPTS),
        registers="policy",
        presets=(
            Preset(
                name="oaif",
                title="Online AI feedback (arXiv:2402.04792)",
                settings=ONLINE_DPO_PRESETS["OAIF"],
            ),
            Preset(
                name="best_worst",
                title="Best and worst of eight (arXiv:2405.07863)",
                settings=ONLINE_DPO_PRESETS["best and worst of eight"],
            ),
        ),
    ),
    Method(
        config=DpoConfig,
        title="Direct preference optimisation",
        about="The policy learns from people's rankings, with no reward model between.",
        docs="algorithms/dpo.md",
        inputs=(
            Input(role="base", title="Start from", versions=SAMPLERS),
            _RANKINGS,
        ),
        registers="policy",
        takes_processes=True,
        presets=(
            Preset(
                name="dpo",
                title="DPO (arXiv:2305.18290, B)",
                settings={"beta": 0.1, "lr": 1e-6, "rankings_per_step": 64},
            ),
        ),
    ),
    Method(
        config=KtoConfig,
        title="Kahneman-Tversky optimisation",
        about="The policy learns from answers that are good or bad by themselves.",
        docs="algorithms/kto.md",
        inputs=(
            Input(role="base", title="Start from", versions=SAMPLERS),
            Input(role="ratings", title="Ratings", kinds=("ratings",), is_required=False),
            Input(role="rankings", title="Rankings", kinds=("rankings",), is_required=False),
        ),
        registers="policy",
        takes_processes=True,
        presets=(
            Preset(
                name="kto",
                title="KTO (arXiv:2402.01306)",
                settings={"beta": 0.1, "lr": 5e-6, "examples_per_step": 32, "balance": True},
            ),
        ),
    ),
    Method(
        config=OrpoConfig,
        title="Odds ratio preference optimisation",
        about="The policy learns to write chosen answers and not the others, in one stage.",
        docs="algorithms/orpo.md",
        inputs=(
            Input(role="base", title="Start from", versions=SAMPLERS),
            _RANKINGS,
        ),
        registers="policy",
        takes_processes=True,
        presets=(
            Preset(
                name="orpo",
                title="ORPO (arXiv:2403.07691)",
                settings={"odds_weight": 0.1, "lr": 8e-6},
            ),
        ),
    ),
    Method(
        config=DistillConfig,
        title="Distillation",
        about="A student learns what a teacher says, by its answers or by its logits.",
        docs="algorithms/distillation.md",
        inputs=(
            Input(role="base", title="Student to start from", versions=SAMPLERS),
            Input(role="teacher", title="Teacher", versions=SAMPLERS, is_required=False),
            Input(
                role="demonstrations",
                title="Demonstrations",
                kinds=("demonstrations",),
                is_required=False,
                is_many=True,
            ),
            Input(
                role="candidates",
                title="The teacher's answers",
                kinds=("candidates",),
                is_required=False,
            ),
            Input(
                role="prompts", title="Prompts it answered", kinds=("prompts",), is_required=False
            ),
        ),
        registers="policy",
        takes_processes=True,
        presets=(
            Preset(
                name="sequence",
                title="The teacher's answers alone (arXiv:1606.07947)",
                settings={"logits_share": 0.0},
            ),
            Preset(
                name="gkd",
                title="Half way between the KLs (arXiv:2306.13649)",
                settings={"divergence": "jensen_shannon", "beta": 0.5},
            ),
        ),
    ),
    Method(
        config=GenerateConfig,
        title="Sampling",
        about="A policy answers prompts.",
        docs="runs.md",
        inputs=(
            Input(
                role="model", title="Policy", versions=(*SAMPLERS, "quantised"), is_required=False
            ),
            _PROMPTS,
        ),
    ),
    Method(
        config=RejectionConfig,
        title="Rejection sampling",
        about="A reward model keeps the best of many answers, to fine-tune on.",
        docs="algorithms/rejection-sampling.md",
        inputs=(
            _REWARD,
            _PROMPTS,
            Input(role="candidates", title="Answers", kinds=("candidates",)),
            Input(
                role="pool",
                title="Bests of earlier runs",
                kinds=("demonstrations",),
                is_required=False,
                is_many=True,
            ),
        ),
    ),
    Method(
        config=ContextDistillationConfig,
        title="Context distillation",
        about="Answers written under a pre-prompt are kept where they are better than without.",
        docs="algorithms/context-distillation.md",
        inputs=(
            _REWARD,
            _PROMPTS,
            Input(role="candidates", title="Answers without it", kinds=("candidates",)),
            Input(role="candidates_under", title="Answers under it", kinds=("candidates",)),
        ),
    ),
    Method(
        config=GhostAttentionConfig,
        title="Ghost attention",
        about="A policy writes dialogues that keep to an instruction, to fine-tune on.",
        docs="algorithms/ghost-attention.md",
        inputs=(Input(role="model", title="Policy", versions=SAMPLERS), _PROMPTS),
    ),
    Method(
        config=MergeAdapterConfig,
        title="Merging an adapter",
        about="A LoRA adapter and its base become one model.",
        docs="algorithms/adapters.md",
        inputs=(Input(role="adapter", title="Adapter", versions=("adapter",)),),
        registers="policy",
        parent="adapter",
    ),
    Method(
        config=QuantiseConfig,
        title="Quantisation",
        about="A policy's weights become small integers, for serving; what that cost is measured.",
        docs="algorithms/quantisation.md",
        inputs=(
            Input(role="base", title="Policy", versions=POLICIES),
            Input(role="demonstrations", title="Text to hear it on", kinds=("demonstrations",)),
            Input(
                role="rankings",
                title="Choices to test it by",
                kinds=("rankings",),
                is_required=False,
            ),
        ),
        registers="quantised",
    ),
    Method(
        config=EvaluateConfig,
        title="Comparing two policies",
        about="Reward, length and KL of a policy before and after, on held-out prompts.",
        docs="algorithms/evaluation.md",
        inputs=(
            Input(role="before", title="Policy before", versions=SAMPLERS),
            Input(role="after", title="Policy after", versions=SAMPLERS),
            _REWARD,
            _PROMPTS,
            Input(role="candidates_before", title="Answers before", kinds=("candidates",)),
            Input(role="candidates_after", title="Answers after", kinds=("candidates",)),
        ),
    ),
    Method(
        config=JudgeConfig,
        title="AI feedback",
        about="A model judges a project's tasks by a written constitution, marked as a model.",
        docs="algorithms/ai-feedback.md",
        inputs=(
            Input(role="model", title="Judge", versions=POLICIES, is_required=False),
            Input(role="tasks", title="Tasks", of_project=("open", "judged")),
        ),
    ),
    Method(
        config=SelfInstructConfig,
        title="Self-Instruct",
        about="A model writes new prompts after a project's; people accept or reject each.",
        docs="algorithms/self-instruct.md",
        inputs=(
            Input(role="model", title="Writer", versions=POLICIES, is_required=False),
            Input(role="seeds", title="Prompts to start from", of_project=("prompts",)),
        ),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHODS}

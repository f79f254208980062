"""What writes, chooses or judges answers, or writes prompts."""

from alignment.methods.method import (
    ASKED,
    POLICIES,
    PROMPTS,
    REFERENCES,
    REWARD,
    SAMPLERS,
    Input,
    Method,
)
from alignment.ml.configs import (
    ContextDistillationConfig,
    GhostAttentionConfig,
    JudgeConfig,
    RateConfig,
    RejectionConfig,
    ReviseConfig,
    SelfInstructConfig,
)
from modelhub.ml.configs import GenerateConfig

ANSWERS = (
    Method(
        config=GenerateConfig,
        title="Sampling",
        about="A policy answers prompts.",
        docs="runs.md",
        inputs=(
            Input(
                role="model", title="Policy", versions=(*SAMPLERS, "quantised"), is_required=False
            ),
            ASKED,
        ),
    ),
    Method(
        config=RejectionConfig,
        title="Rejection sampling",
        about="A reward model, or a checker, keeps the best of many answers, to fine-tune on.",
        docs="algorithms/rejection-sampling.md",
        inputs=(
            Input(role="reward", title="Reward model", versions=("reward",), is_required=False),
            REFERENCES,
            PROMPTS,
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
            REWARD,
            PROMPTS,
            Input(role="candidates", title="Answers without it", kinds=("candidates",)),
            Input(role="candidates_under", title="Answers under it", kinds=("candidates",)),
        ),
    ),
    Method(
        config=GhostAttentionConfig,
        title="Ghost attention",
        about="A policy writes dialogues that keep to an instruction, to fine-tune on.",
        docs="algorithms/ghost-attention.md",
        inputs=(Input(role="model", title="Policy", versions=SAMPLERS), PROMPTS),
    ),
    Method(
        config=JudgeConfig,
        title="AI feedback",
        about="A model judges a project's tasks by a written constitution, marked as a model.",
        docs="algorithms/ai-feedback.md",
        inputs=(
            Input(role="model", title="Judge", versions=POLICIES, is_required=False),
            Input(
                role="tasks",
                title="Pairs and rankings",
                of_project=("open", "judged"),
                task_kinds=("pair", "ranking"),
            ),
        ),
    ),
    Method(
        config=RateConfig,
        title="AI ratings",
        about="A model rates each answer of a project's rating tasks from 1 to 7, by a rubric.",
        docs="algorithms/ai-feedback.md",
        inputs=(
            Input(role="model", title="Judge", versions=POLICIES, is_required=False),
            Input(
                role="tasks",
                title="Rating tasks",
                of_project=("open", "judged"),
                task_kinds=("rating",),
            ),
        ),
    ),
    Method(
        config=ReviseConfig,
        title="Critique and revision",
        about="A model criticises an answer by a principle and writes it anew: an edit.",
        docs="algorithms/critique-and-revision.md",
        inputs=(
            Input(role="model", title="Reviser", versions=POLICIES, is_required=False),
            Input(
                role="tasks",
                title="Edit tasks",
                of_project=("open", "judged"),
                task_kinds=("edit",),
            ),
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

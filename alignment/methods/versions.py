"""What makes one version of another, or compares two."""

from alignment.methods.method import (
    ASKED,
    EVALUATION_PROMPTS,
    POLICIES,
    REFERENCES,
    REWARD,
    SAMPLERS,
    Input,
    Method,
)
from alignment.ml.configs import (
    EvaluateConfig,
    MergeAdapterConfig,
    QuantiseConfig,
)
from modelhub.ml.configs import ExportGgufConfig

VERSIONS = (
    Method(
        config=MergeAdapterConfig,
        title="Merging an adapter",
        about="A LoRA adapter and its base become one model, a policy or a reward model.",
        docs="algorithms/adapters.md",
        inputs=(
            Input(
                role="adapter",
                title="Adapter",
                versions=("adapter", "reward"),
                artifact="adapter",
            ),
        ),
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
            EVALUATION_PROMPTS,
            REFERENCES,
        ),
        registers="quantised",
    ),
    Method(
        config=ExportGgufConfig,
        title="GGUF export",
        about="A policy becomes one file for llama.cpp, read back and compared before it is kept.",
        docs="algorithms/gguf.md",
        inputs=(Input(role="base", title="Policy", versions=POLICIES),),
    ),
    Method(
        config=EvaluateConfig,
        title="Comparing two policies",
        about="Reward, length and KL of a policy before and after, on held-out prompts.",
        docs="algorithms/evaluation.md",
        inputs=(
            Input(role="before", title="Policy before", versions=SAMPLERS),
            Input(role="after", title="Policy after", versions=SAMPLERS),
            REWARD,
            ASKED,
            Input(role="candidates_before", title="Answers before", kinds=("candidates",)),
            Input(role="candidates_after", title="Answers after", kinds=("candidates",)),
        ),
    ),
)

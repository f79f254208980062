"""What trains reward models, or makes one of several."""

from alignment.methods.method import (
    POLICIES,
    RANKINGS,
    Input,
    Method,
    Preset,
)
from alignment.ml.configs import (
    EnsembleConfig,
    RewardConfig,
)

REWARDS = (
    Method(
        config=RewardConfig,
        title="Reward model",
        about="A score for an answer, learnt from people's rankings.",
        docs="algorithms/reward-model.md",
        inputs=(
            Input(role="base", title="Start from", versions=(*POLICIES, "reward")),
            RANKINGS,
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
            RANKINGS,
        ),
    ),
)

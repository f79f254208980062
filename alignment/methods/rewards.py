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

# The small margins came out best on average (table 28). Pairs must say how much better.
_LLAMA2 = {
    "epochs": 1,
    "lr": 1e-5,
    "warmup_share": 0.03,
    "lr_final_share": 0.1,
    "rankings_per_step": 512,
    "degree_margin": "small",
}

REWARDS = (
    Method(
        config=RewardConfig,
        title="Reward model",
        about="A score for an answer, learnt from people's rankings.",
        docs="algorithms/reward-model.md",
        inputs=(
            Input(role="base", title="Start from", versions=(*POLICIES, "reward")),
            RANKINGS,
            Input(
                role="demonstrations",
                title="Demonstrations, whose mean score becomes 0",
                kinds=("demonstrations",),
                is_required=False,
            ),
            Input(
                role="policy",
                title="Policy to be scored, whose chats must be laid out alike",
                versions=POLICIES,
                is_required=False,
            ),
        ),
        registers="reward",
        takes_processes=True,
        presets=(
            Preset(
                name="llama2",
                title="Llama 2, helpfulness (arXiv:2307.09288, 3.2.2)",
                settings=_LLAMA2,
            ),
            Preset(
                name="llama2_safety",
                title="Llama 2, safety (arXiv:2307.09288, 3.2.2, table 29)",
                settings={**_LLAMA2, "safety_weight": 1.0, "leave_out_unsafe_won": True},
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

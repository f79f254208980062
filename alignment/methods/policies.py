"""What trains a policy."""

from alignment.methods.method import (
    BASE,
    EVALUATION_PROMPTS,
    PROMPTS,
    RANKINGS,
    REFERENCE,
    REWARDED,
    SAMPLERS,
    Input,
    Method,
    Preset,
)
from alignment.ml.configs import (
    DistillConfig,
    DpoConfig,
    GrpoConfig,
    KtoConfig,
    OnlineDpoConfig,
    OrpoConfig,
    PpoConfig,
    RlooConfig,
    SftConfig,
)
from alignment.ml.configs.grpo import PRESETS as GRPO_PRESETS
from alignment.ml.configs.online_dpo import PRESETS as ONLINE_DPO_PRESETS
from alignment.ml.configs.ppo import PRESETS as PPO_PRESETS
from alignment.ml.configs.rloo import PRESETS as RLOO_PRESETS
from modelhub.ml.configs import ProgramConfig


def _online(
    config: type[ProgramConfig],
    title: str,
    about: str,
    *presets: Preset,
    beside: tuple[Input, ...] = (),
) -> Method:
    """A method that learns from answers that it draws, scored as it trains."""
    return Method(
        config=config,
        title=title,
        about=about,
        docs=f"algorithms/{config.PROGRAM.replace('_', '-')}.md",
        inputs=(BASE, PROMPTS, *REWARDED, REFERENCE, *beside, EVALUATION_PROMPTS),
        registers="policy",
        takes_processes=True,
        presets=presets,
    )


ONLINE = (
    _online(
        PpoConfig,
        "PPO",
        "The policy learns to write what a reward model likes.",
        Preset("instructgpt", "InstructGPT (arXiv:2203.02155, C.4)", PPO_PRESETS["InstructGPT"]),
        Preset("llama2", "Llama 2 (arXiv:2307.09288, 3.2.2, 3.4)", PPO_PRESETS["Llama 2"]),
        Preset(
            "summarize",
            "Summarize from feedback (arXiv:2403.17031)",
            PPO_PRESETS["summarize from feedback"],
        ),
        beside=(
            Input(
                role="pretraining",
                title="Texts to learn beside (PPO-ptx)",
                kinds=("corpus", "demonstrations"),
                is_required=False,
            ),
        ),
    ),
    _online(
        RlooConfig,
        "RLOO",
        "The policy learns to write what is rewarded above its other answers to the prompt.",
        Preset("rloo", "RLOO (arXiv:2402.14740)", RLOO_PRESETS["RLOO"]),
    ),
    _online(
        GrpoConfig,
        "GRPO",
        "As RLOO, token by token and clipped, rewards scaled within the prompt.",
        Preset("grpo", "GRPO (arXiv:2402.03300, 4.2)", GRPO_PRESETS["GRPO"]),
        Preset("dr_grpo", "Dr. GRPO (arXiv:2503.20783)", GRPO_PRESETS["Dr. GRPO"]),
        Preset("dapo", "DAPO (arXiv:2503.14476)", GRPO_PRESETS["DAPO"]),
    ),
    _online(
        OnlineDpoConfig,
        "Online DPO",
        "DPO on pairs of the policy's own answers, judged as it trains.",
        Preset("oaif", "Online AI feedback (arXiv:2402.04792)", ONLINE_DPO_PRESETS["OAIF"]),
        Preset(
            "best_worst",
            "Best and worst of eight (arXiv:2405.07863)",
            ONLINE_DPO_PRESETS["best and worst of eight"],
        ),
    ),
)

POLICY_METHODS = (
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
            Input(
                role="reward",
                title="Reward model that chooses the step",
                versions=("reward",),
                is_required=False,
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
    *ONLINE,
    Method(
        config=DpoConfig,
        title="Direct preference optimisation",
        about="The policy learns from people's rankings, with no reward model between.",
        docs="algorithms/dpo.md",
        inputs=(
            Input(role="base", title="Start from", versions=SAMPLERS),
            RANKINGS,
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
            RANKINGS,
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
                role="prompts",
                title="Prompts it answered",
                kinds=("prompts",),
                is_required=False,
                of_project=("train",),
                is_learnt=True,
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
)

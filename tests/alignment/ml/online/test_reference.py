"""A step's loss and gradients against TRL's trainers, on the answers that they drew.

Same policy, reference, answers and rewards; the policy has moved since it drew, so that ratios are
not 1 and some are clipped. Ours computes each prompt once for its answers, theirs each by itself.
"""

import copy

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
trl = pytest.importorskip("trl", reason="the ml extra is not installed")

from datasets import Dataset

from alignment.ml.configs import GrpoConfig, RlooConfig
from alignment.ml.online import grpo, rloo
from alignment.ml.online.batch import batch_make
from alignment.ml.online.updates import Learner
from alignment.ml.ppo.rewards import Answers
from alignment.ml.shared_prefix import Group, attach
from modelhub.ml.checkpoint import model_load
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = pytest.mark.ml

PROMPTS, SAMPLES, MAX_TOKENS = 3, 4, 6
BETA = 0.1


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def nudge(model, size, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))


def reward_of(completion_ids, **_):
    """Any rule will do. The second prompt's answers are all worth the same."""
    found = [float(sum(ids) % 7) for ids in completion_ids]
    found[SAMPLES : 2 * SAMPLES] = [2.0] * SAMPLES
    return found


def theirs(kind, base, folder, **settings):
    """(answers drawn, as TRL holds them; the trainer with a moved policy; its reference)."""
    model = model_load(base, dtype="float32")
    config = {"rloo": trl.RLOOConfig, "grpo": trl.GRPOConfig}[kind](
        output_dir=str(folder),
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=MAX_TOKENS,
        beta=BETA,
        num_iterations=2,  # or GRPO's trainer keeps no log-probabilities of the draw
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        **settings,
    )
    dataset = Dataset.from_list([{"prompt": f"prompt number {n}"} for n in range(PROMPTS)])
    trainer = {"rloo": trl.RLOOTrainer, "grpo": trl.GRPOTrainer}[kind](
        model=model,
        reward_funcs=reward_of,
        args=config,
        train_dataset=dataset,
        processing_class=tiny_tokenizer(),
    )
    reference = trainer.ref_model or model_load(base, dtype="float32")
    trainer.ref_model = reference
    nudge(reference, 0.02, seed=1)
    trainer.model.train()
    rows = [dict(row) for row in dataset for _ in range(SAMPLES)]
    trainer.current_gradient_accumulation_steps = 1
    return trainer._generate_and_score_completions(rows), trainer, reference


def ours_of(output):
    """TRL's padded answers as groups that share their prompt."""
    groups = []
    for first in range(0, PROMPTS * SAMPLES, SAMPLES):
        prompt = output["prompt_ids"][first][output["prompt_mask"][first].bool()].tolist()
        answers = [
            output["completion_ids"][place][output["completion_mask"][place].bool()].tolist()
            for place in range(first, first + SAMPLES)
        ]
        groups.append(Group(prompt, answers))
    return Answers(
        prompt_ids=[str(n) for n in range(PROMPTS)],
        groups=groups,
        judged=groups,
        texts=[[""] * SAMPLES] * PROMPTS,
        ended=[[True] * SAMPLES] * PROMPTS,
    )


def compare(method, kind, config, base, tmp_path, **settings):
    output, trainer, reference = theirs(kind, base, tmp_path, **settings)
    answers = ours_of(output)
    policy, other = copy.deepcopy(trainer.model), copy.deepcopy(reference)
    attach(policy)
    attach(other)
    learner = Learner(policy, other, config)
    batch, _ = batch_make(answers, actor=policy, reference=other, config=config)
    scores = reward_of([answer for group in answers.groups for answer in group.answers])
    scores_BK = torch.tensor(scores).view(PROMPTS, SAMPLES)
    advantages = method.advantages_of(batch, scores_BK, config)
    assert torch.allclose(advantages.flatten(), output["advantages"], rtol=1e-4, atol=1e-4)

    nudge(trainer.model, 0.02, seed=2)
    nudge(policy, 0.02, seed=2)
    loss = trainer._compute_loss(trainer.model, output)
    loss.backward()
    figures, _ = method.minibatch_gradients(learner, batch, advantages, config, range(PROMPTS))
    assert figures["policy/clipfrac_avg"] > 0
    total = figures["loss/policy_avg"]
    for (name, own), one in zip(policy.named_parameters(), trainer.model.parameters(), strict=True):
        assert torch.allclose(own.grad, one.grad, rtol=1e-3, atol=1e-5), name
    return total, figures, float(loss.detach())


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("budget_tokens", [40, 4096], ids=["rows", "one row"])
def test_rloo_is_trl_s(base, tmp_path, normalize, budget_tokens):
    config = RlooConfig(
        kl_coef=BETA,
        max_tokens=MAX_TOKENS,
        normalize_advantages=normalize,
        budget_tokens=budget_tokens,
    )
    ours, _, wanted = compare(rloo, "rloo", config, base, tmp_path, normalize_advantages=normalize)
    assert ours == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("loss", "scale", "high"),
    [("grpo", "group", 0.2), ("dapo", "batch", 0.28), ("dr_grpo", "none", 0.2)],
)
def test_grpo_is_trl_s(base, tmp_path, loss, scale, high):
    config = GrpoConfig(
        loss=loss,
        scale_rewards=scale,
        cliprange_high=high,
        kl_coef=BETA,
        max_tokens=MAX_TOKENS,
        budget_tokens=60,
    )
    ours, figures, wanted = compare(
        grpo,
        "grpo",
        config,
        base,
        tmp_path,
        loss_type=loss,
        scale_rewards=scale,
        epsilon_high=high,
        use_bias_correction_kl=False,  # the paper's; ours has k2 for an unbiased gradient
    )
    if loss == "dapo":  # the KL's mean over tokens is the figure that is logged
        ours += BETA * figures["loss/kl_avg"]
        assert ours == pytest.approx(wanted, rel=1e-4, abs=1e-5)

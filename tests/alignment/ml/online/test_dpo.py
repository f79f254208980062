"""Online DPO: which answers become a pair, its loss, and the program."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import checkers
from alignment.ml.configs import OnlineDpoConfig
from alignment.ml.configs.online_dpo import PRESETS
from alignment.ml.online import dpo
from alignment.ml.online.batch import batch_make
from alignment.ml.online.updates import Learner
from alignment.ml.ppo.rewards import Answers
from alignment.ml.shared_prefix import Group, attach
from modelhub.ml.checkpoint import model_load
from modelhub.ml.configs import ConfigError, RefusedError, config_load
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.online.runs import online_run_make, plain_logprobs, references_write
from tests.alignment.ml.ppo.runs import figures_of
from tests.alignment.ml.programs import prompts_write, result_of
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

GROUPS = [
    Group([5, 6, 7], [[8, 9], [10, 11, 12], [13]]),
    Group([5, 6], [[20, 21], [22], [23, 24]]),
    Group([30], [[31, 32], [33, 34], [35]]),
]
SCORES = [[0.5, 2.0, -1.0], [1.0, 1.0, 1.0], [3.0, 0.0, 3.0]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def learner_of(base, config):
    actor, reference = (model_load(base, dtype="float32") for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in actor.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    attach(actor)
    attach(reference)
    return Learner(actor, reference, config)


def batch_of(learner, config):
    answers = Answers(["a", "b", "c"], GROUPS, GROUPS, [[""] * 3] * 3, [[True] * 3] * 3)
    return batch_make(answers, actor=learner.actor, reference=learner.reference, config=config)[0]


def test_the_best_and_the_worst_of_a_prompt_are_a_pair_and_equal_answers_none(base):
    config = OnlineDpoConfig(samples=3)
    pairs = dpo.pairs_choose(batch_of(learner_of(base, config), config), torch.tensor(SCORES))
    assert [pair.group for pair in pairs] == [
        Group([5, 6, 7], [[10, 11, 12], [13]]),
        Group([30], [[31, 32], [33, 34]]),
    ]


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
@pytest.mark.parametrize("budget_tokens", [8, 4096], ids=["a pair a row", "one row"])
def test_the_loss_and_its_gradient_are_those_of_each_answer_by_itself(base, loss, budget_tokens):
    config = OnlineDpoConfig(samples=3, loss=loss, beta=0.3, budget_tokens=budget_tokens)
    learner = learner_of(base, config)
    alone = copy.deepcopy(learner.actor)
    alone.set_attn_implementation("eager")
    other = model_load(base, dtype="float32")
    losses = []
    for prompt, better, worse in (([5, 6, 7], [10, 11, 12], [13]), ([30], [31, 32], [33, 34])):
        ratios = []
        for answer in (better, worse):
            ratio = plain_logprobs(alone, prompt, answer) - plain_logprobs(other, prompt, answer)
            ratios.append(ratio.sum() if loss == "sigmoid" else ratio.mean())
        gap = ratios[0] - ratios[1]
        if loss == "sigmoid":
            losses.append(-torch.log(torch.sigmoid(0.3 * gap)))
        else:
            losses.append((gap - 1 / 0.6) ** 2)
    wanted = sum(losses) / 2
    wanted.backward()

    pairs = dpo.pairs_choose(batch_of(learner, config), torch.tensor(SCORES))
    figures, tokens = dpo.minibatch_gradients(learner, pairs, config, range(2))
    assert figures["loss/policy_avg"] == pytest.approx(wanted.item(), rel=1e-5)
    assert tokens == 7 + 5
    for own, one in zip(learner.actor.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(own.grad, one.grad, rtol=1e-3, atol=1e-6)


@pytest.fixture
def capitals(monkeypatch):
    def share(text, right):
        return 1.0 if text == right else sum(one.isupper() for one in text) / max(1, len(text))

    monkeypatch.setitem(checkers.CHECKERS, "capitals", share)


def test_it_learns_what_is_rewarded_on_prompts_it_never_saw(tmp_path, base, capitals):
    inputs = {
        "base": base,
        "references": references_write(tmp_path / "references"),
        "evaluation_prompts": prompts_write(tmp_path / "e", [f"e{n}" for n in range(8)]),
    }
    run = online_run_make(
        tmp_path,
        "online_dpo",
        inputs,
        prompts=16,
        checker="capitals",
        epochs=6,
        prompts_per_step=8,
        samples=4,
        lr=2e-3,
    )
    dpo.main(RunDir(run))
    assert result_of(run)["held_out"]["difference_low"] > 0.02
    assert {"rewards/chosen", "rewards/margins"} <= result_of(run)["last_steps"].keys()
    assert figures_of(run)[1]["loss/policy_avg"] == pytest.approx(0.6931, abs=1e-3)


def test_a_step_without_a_pair_takes_no_update_and_a_run_without_one_fails(
    tmp_path, base, monkeypatch
):
    seen = []

    def second_step(text, right):  # by whose lights the first step's eight answers are alike
        if text == right:
            return 1.0
        seen.append(text)
        return float(len(seen) % 2) if len(seen) > 8 else 0.0

    monkeypatch.setitem(checkers.CHECKERS, "late", second_step)
    monkeypatch.setitem(checkers.CHECKERS, "never", lambda text, right: float(text == right))
    inputs = {"base": base, "references": references_write(tmp_path / "references")}
    run = online_run_make(tmp_path / "a", "online_dpo", inputs, checker="late", samples=2)
    dpo.main(RunDir(run))
    first, second = figures_of(run)[1], figures_of(run)[2]
    assert first["policy/updates"] == 0 and "loss/policy_avg" not in first
    assert first["objective/equal_prompts"] == 1.0 and second["policy/updates"] == 1
    run = online_run_make(tmp_path / "b", "online_dpo", inputs, checker="never", samples=2)
    with pytest.raises(RefusedError, match="answers of different scores"):
        dpo.main(RunDir(run))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"samples": 1}, "samples"),
        ({"loss": "robust"}, "loss"),
        ({"beta": 0.0}, "beta"),
        ({"whiten_scores": True}, "whiten_scores"),
        ({"reward_scale": -1.0}, "reward_scale"),
    ],
)
def test_a_setting_out_of_range_is_named(values, field):
    with pytest.raises(ConfigError, match=rf"online_dpo\.{field}: wanted"):
        config_load(OnlineDpoConfig, values)


def test_presets_are_settings_that_can_be_run():
    for values in PRESETS.values():
        assert config_load(OnlineDpoConfig, values).PROGRAM == "online_dpo"

"""A mixture of experts through every program that reads a policy, on a tiny one as pretraining
makes it."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import dpo, evaluate, quantise, sft
from alignment.ml.configs import PpoConfig
from alignment.ml.online import grpo
from alignment.ml.ppo.sampling import Drawing, prompts_lay
from alignment.ml.reward import training as reward
from modelhub.ml import import_model
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.online.runs import online_run_make
from tests.alignment.ml.pretrained import IDS, playground_check, pretrained_write, said
from tests.alignment.ml.programs import (
    candidate,
    candidates_write,
    metrics_of,
    prompts_write,
    result_of,
    run_make,
    tiny_reward_write,
)
from tests.alignment.ml.reward.test_training import rows
from tests.alignment.ml.reward.test_training import run_make as reward_run_make
from tests.alignment.ml.test_dpo import dpo_run
from tests.alignment.ml.test_sft import demonstration, sft_run

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pretrained_write(
        tmp_path_factory.mktemp("base"),
        "mixtral",
        transformers.MixtralForCausalLM,
        initializer_range=0.2,
    )


def experts_of(folder):
    state = model_load(folder, dtype="float32").state_dict()
    return {name: tensor for name, tensor in state.items() if ".mlp." in name}


def test_it_is_imported_with_the_weights_it_had(tmp_path, base):
    run = run_make(
        tmp_path / "run",
        "import_model",
        {},
        {"source": "directory", "location": str(base), "model": "experts"},
    )
    import_model.main(RunDir(run))
    assert result_of(run)["architecture"] == "MixtralForCausalLM"
    before, after = experts_of(base), experts_of(run / "outputs" / "model")
    assert before and all(torch.equal(before[name], after[name]) for name in before)


def test_it_learns_demonstrations_experts_included_and_says_them(tmp_path, base):
    records = [demonstration(name, f"{name} it is") for name in IDS]
    run = sft_run(tmp_path / "sft", base, records, epochs=60, examples_per_step=2, lr=5e-3)
    sft.main(RunDir(run))
    losses = [values["loss"] for values in metrics_of(run).values()]
    assert losses[-1] < 0.05 * losses[0]
    before, after = experts_of(base), experts_of(run / "outputs" / "model")
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert said(tmp_path, model=run / "outputs" / "model") == ["p00 it is", "p01 it is"]


def test_rankings_teach_it_as_a_policy_and_as_a_reward_model(tmp_path, base):
    records = [*rows(16), *rows(4, first=200, split="held_out")]
    run = dpo_run(tmp_path / "dpo", base, records, epochs=2)
    dpo.main(RunDir(run))
    assert result_of(run)["loss_last_steps"] < result_of(run)["loss_first"]
    run = reward_run_make(tmp_path / "reward", base, records, epochs=8)
    reward.main(RunDir(run))
    assert result_of(run)["losses"][-1] < 0.4
    assert result_of(run)["held_out"]["accuracy"] > 0.7
    model = model_load(run / "outputs" / "model", dtype="float32", role="reward")
    assert type(model).__name__ == "MixtralForSequenceClassification"


def test_it_learns_from_its_own_answers_and_is_compared(tmp_path, base):
    scorer = tiny_reward_write(tmp_path / "reward", base)
    run = online_run_make(
        tmp_path / "grpo", "grpo", {"base": base, "reward": scorer}, prompts=4, lr=1e-2
    )
    grpo.main(RunDir(run))
    found = metrics_of(run)[1]
    assert found["canary/logprob_difference"] < 1e-4
    assert found["val/ratio"] == pytest.approx(1.0, abs=1e-4)
    answers = [candidate(name, 0, f"{name} it is") for name in IDS]
    inputs = {
        "before": base,
        "after": run / "outputs" / "model",
        "reward": scorer,
        "prompts": prompts_write(tmp_path / "prompts", IDS),
        "candidates_before": candidates_write(tmp_path / "before", answers),
        "candidates_after": candidates_write(tmp_path / "after", answers),
    }
    compared = run_make(tmp_path / "run", "evaluate", inputs, {"bootstrap_samples": 10})
    evaluate.main(RunDir(compared))
    assert result_of(compared)["kl_per_answer_nats"] > 0


def test_the_playground_writes_what_transformers_writes(base):
    playground_check(base)


def test_it_is_not_quantised_but_refused(tmp_path, base):
    run = run_make(tmp_path / "run", "quantise", {"base": base}, {})
    with pytest.raises(RefusedError, match="most of its weights in experts"):
        quantise.main(RunDir(run))


def test_vllm_does_not_take_its_weights_while_it_is_trained(tmp_path, base):
    laid = prompts_lay(
        prompts_write(tmp_path / "p", IDS) / "prompts.jsonl", tokenizer_load(base), room_tokens=100
    )
    with pytest.raises(RefusedError, match="a mixture of experts' weights while it is trained"):
        Drawing(base, tokenizer_load(base), laid, PpoConfig(engine="vllm", max_tokens=4))
    chosen = Drawing(base, tokenizer_load(base), laid, PpoConfig(engine="auto", max_tokens=4))
    assert chosen.name == "transformers"

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
from modelhub.ml import generate, import_model
from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_load, model_save, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.manifest import manifest_write
from modelhub.ml.playground import prompt_lay
from modelhub.ml.pretraining.architectures import Special, model_config
from modelhub.ml.pretraining.presets import SIZES
from modelhub.ml.rundir import RunDir
from modelhub.ml.trials import PlaygroundConfig
from modelhub.ml.writer import Writer
from tests.alignment.ml.online.runs import online_run_make
from tests.alignment.ml.programs import (
    candidate,
    candidates_write,
    lines_of,
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
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.ml

IDS = ["p00", "p01"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    tokenizer = tiny_tokenizer()
    special = Special(
        vocabulary=len(tokenizer),
        table=len(tokenizer),
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
    )
    config = model_config("mixtral", SIZES["mixtral"]["tiny"], special, context=256, dropout=0.0)
    config.initializer_range = 0.2
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    model_save(transformers.MixtralForCausalLM(config), tokenizer, folder, dtype="float32")
    manifest_write(folder)
    return folder


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
    inputs = {
        "model": run / "outputs" / "model",
        "prompts": prompts_write(tmp_path / "prompts", IDS),
    }
    config = {"engine": "transformers", "temperatures": [0.0], "samples": 1, "max_tokens": 16}
    drawn = run_make(tmp_path / "drawn", "generate", inputs, config)
    generate.main(RunDir(drawn))
    found = lines_of(drawn / "outputs" / "candidates" / "candidates.jsonl")
    assert [one["text"] for one in found] == ["p00 it is", "p01 it is"]


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
    config = PlaygroundConfig(
        models=("experts v1",),
        strategies=({"kind": "greedy"},),
        prompt="One two",
        layout="plain",
        max_tokens=8,
    )
    tokenizer = tiny_tokenizer()
    writer = Writer(ModelInput(base), tokenizer, config)
    *_, written = writer.write(
        writer.prompt_read(prompt_lay(tokenizer, config)[1]), config.decodings[0]
    )
    ids = torch.tensor([tokenizer("One two")["input_ids"]])
    out = model_load(base, dtype="float32").generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=2
    )
    assert [one.id for one in written] == out[0, ids.shape[1] :].tolist()


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

"""Methods that learn from what they draw have the losses of one process on two. Real ones, gloo."""

import importlib
import time

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("peft", reason="the ml extra is not installed")

from safetensors.torch import load_file

from tests.alignment.ml.online.runs import FAST as ONLINE
from tests.alignment.ml.ppo.runs import FAST as PPO
from tests.alignment.ml.ppo.runs import figures_of
from tests.alignment.ml.programs import prompts_write, result_of, run_make, tiny_reward_write
from tests.modelhub.ml.ranks import ranks_end, ranks_run, ranks_start
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.slow]

# Three answers to each of four prompts and then two, so that a rank has a row more than the other,
# or none; minibatches, whose answers are no more than a row or two.
STEPS = {"prompts_per_step": 4, "minibatches": 2, "epochs": 2, "budget_tokens": 90}
WHITE = {"whiten_scores": True, "whiten_rewards": True}  # over the whole step
METHODS = {
    "ppo": (
        "alignment.ml.ppo.__main__",
        {**PPO, **WHITE, "kl_coef": 0.1, "ema_decay": 0.5, "evaluate_every_steps": 1},
    ),
    "rloo": (
        "alignment.ml.online.rloo",
        {**ONLINE, "normalize_advantages": True, "adapter": "lora", "lora_rank": 4},
    ),
    "grpo": (
        "alignment.ml.online.grpo",
        {**ONLINE, "kl_coef": 0.1, "scale_rewards": "batch", "evaluate_every_steps": 2},
    ),
    "online_dpo": ("alignment.ml.online.dpo", ONLINE),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    base = tiny_model_write(folder / "base")
    return {
        "base": base,
        "reward": tiny_reward_write(folder / "reward", base, seed=3),
        "prompts": prompts_write(folder / "prompts", [f"p{number:02}" for number in range(6)]),
        "evaluation_prompts": prompts_write(folder / "asked", ["e0", "e1", "e2", "e3"]),
    }


def made(folder, inputs, method, **more):
    module, config = METHODS[method]
    run = run_make(folder, method, inputs, {**config, **STEPS, **more})
    return run, importlib.import_module(module).main


def trained(folder, inputs, method, *, world, strategy="ddp"):
    run, main = made(folder, inputs, method)
    statuses = ranks_run(main, run, world=world, strategy=strategy)
    assert statuses == [0] * world, (run / "log.txt").read_text()[-3000:]
    return run


def runs_compare(one, other):
    expected, found = figures_of(one), figures_of(other)
    assert len(expected) == len(found) == 4
    for step in expected:
        # Adam divides by a moment's root: a gradient near 0 carries its rounding into weights.
        # Losses are small differences of what is drawn, so that nearness is told by their size.
        assert found[step] == pytest.approx(expected[step], rel=1e-4, abs=2e-5), step
    assert figures_of(other)[1]["loss/policy_avg"] == pytest.approx(
        expected[1]["loss/policy_avg"], rel=1e-5, abs=1e-6
    )
    assert result_of(other)["held_out"] == pytest.approx(result_of(one)["held_out"], rel=1e-4)
    assert result_of(other).get("published_step") == result_of(one).get("published_step")
    ours, theirs = (load_file(run / "outputs/model/model.safetensors") for run in (one, other))
    assert ours.keys() == theirs.keys()
    for name in ours:  # rounded to bfloat16 at random: neighbours on its grid
        assert torch.allclose(ours[name].float(), theirs[name].float(), rtol=2**-7, atol=1e-4), name


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_have_the_losses_of_one(tmp_path, inputs, method):
    one = trained(tmp_path / "one", inputs, method, world=1)
    for strategy in ("ddp", "fsdp2"):
        runs_compare(one, trained(tmp_path / strategy, inputs, method, world=2, strategy=strategy))


def test_a_killed_run_of_two_goes_on_alone(tmp_path, inputs):
    """Actor, critic and average were shared out; the checkpoint has them whole."""
    one = trained(tmp_path / "one", inputs, "ppo", world=1)
    run, main = made(tmp_path / "two", inputs, "ppo", checkpoint_every_steps=2)
    processes = ranks_start(main, run, world=2, strategy="fsdp2")
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "step-00000002" / "manifest.json").exists():
        assert time.monotonic() < deadline, (run / "log.txt").read_text()[-3000:]
        time.sleep(0.005)
    for process in processes:
        process.kill()
    ranks_end(processes)
    assert not (run / "result.json").exists()
    assert ranks_run(main, run, world=1) == [0], (run / "log.txt").read_text()[-3000:]
    assert "resuming behind step 2 of 4" in (run / "log.txt").read_text()
    runs_compare(one, run)


def test_an_engine_with_process_groups_of_its_own_is_refused(tmp_path, inputs):
    run, main = made(tmp_path / "run", inputs, "grpo", engine="vllm")
    assert ranks_run(main, run, world=2) == [2, 2]
    assert "engine vllm makes process groups of its own" in (run / "log.txt").read_text()

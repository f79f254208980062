"""Answers from vLLM, refreshed in place at every step, against the trainer's own numbers."""

import importlib.util

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

from tests.alignment.ml.ppo.runs import figures_of, ppo_run
from tests.alignment.ml.programs import result_of, tiny_reward_write
from tests.modelhub.ml.forks import forks_open
from tests.tiny_model import tiny_model_write

# A start of vLLM takes half a minute on a quiet machine.
pytestmark = [pytest.mark.ml, pytest.mark.slow]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    base = tiny_model_write(tmp_path_factory.mktemp("base"))
    return {"base": base, "reward": tiny_reward_write(tmp_path_factory.mktemp("reward"), base)}


@pytest.fixture(scope="module")
def forks():
    with forks_open() as found:
        yield found


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-3), ("bfloat16", 0.15)])
def test_an_engine_refreshed_in_place_has_the_trainer_s_policy_at_every_step(
    tmp_path, inputs, forks, dtype, apart
):
    run = ppo_run(tmp_path, inputs, engine="vllm", sampler_dtype=dtype, epochs=2, lr=2e-2)
    output = forks.finish("alignment.ml.ppo.__main__:main", run)
    assert "engine vllm" in output
    figures = figures_of(run)
    assert len(figures) == result_of(run)["steps"] == 4
    assert max(values["canary/logprob_difference"] for values in figures.values()) < apart
    assert abs(figures[4]["objective/kl"]) > 0.1  # the weights have moved far


def test_an_engine_that_keeps_its_weights_stops_the_run(tmp_path, inputs, forks):
    run = ppo_run(tmp_path, inputs, engine="vllm", epochs=2, lr=2e-2)
    output = forks.finish("tests.alignment.ml.ppo.vllm_refresh_check:stale", run)
    assert "canary: step 2: vllm and the trainer disagree on the same answers by" in output
    assert not (run / "result.json").exists() and len(figures_of(run)) == 1

"""PPO with vLLM, whose engine keeps its first weights: for tests of what notices it."""

from alignment.ml.ppo import __main__ as ppo
from alignment.ml.ppo.sampling import CanaryError
from modelhub.ml.engines.vllm import VllmEngine
from modelhub.ml.rundir import RunDir


def stale(run: RunDir) -> None:
    VllmEngine.refresh = lambda self, weights: None
    try:
        ppo.main(run)
    except CanaryError as error:
        print(f"canary: {error}")

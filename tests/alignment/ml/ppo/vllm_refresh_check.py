"""PPO with vLLM in a process of its own: `python -m … FOLDER whole|stale`, runs made beforehand.

"stale" plants an engine that keeps its first weights.
"""

import sys

from alignment.ml.ppo.__main__ import main
from alignment.ml.ppo.sampling import CanaryError
from modelhub.ml.engines.vllm import VllmEngine
from modelhub.ml.rundir import RunDir

if __name__ == "__main__":
    run, kind = sys.argv[1:]
    if kind == "stale":
        VllmEngine.refresh = lambda self, weights: None
    try:
        main(RunDir(run))
    except CanaryError as error:
        print(f"canary: {error}")

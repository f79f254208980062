"""PPO with vLLM in a process of its own: `python -m … FOLDER whole|stale`, runs made beforehand.

"stale" takes away what `WeightRefresh` does behind vLLM's own reload.
"""

import sys

from alignment.ml.ppo.__main__ import main
from alignment.ml.ppo.sampling import CanaryError
from modelhub.ml.engines.vllm_refresh import WeightRefresh
from modelhub.ml.rundir import RunDir

if __name__ == "__main__":
    run, kind = sys.argv[1:]
    if kind == "stale":
        WeightRefresh.lm_head_refresh = lambda self: 0
    try:
        main(RunDir(run))
    except CanaryError as error:
        print(f"canary: {error}")

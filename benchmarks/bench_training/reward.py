"""The K-wise reward step on shared prompts against TRL's RewardTrainer: K = 4, 6 and 9.

    python -m benchmarks.bench_training.reward           a JSON line for each K
    python -m benchmarks.bench_training.reward --k 4     that K only

How, and more (memory, SmolLM2-135M): benchmarks/bench_reward.py.
"""

import argparse
import json

from benchmarks.bench_reward import Case, case_measure
from modelhub.ml.allocator import memory_keep

AIMED_AT = {4: 6.5, 6: 11.0, 9: 18.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--k", type=int, choices=AIMED_AT, action="append")
    memory_keep()
    for k in parser.parse_args().k or AIMED_AT:
        found = case_measure(Case(k, "llama-h256-l6"), None)
        print(json.dumps({"method": "reward", **found, "aimed_at": AIMED_AT[k]}), flush=True)


if __name__ == "__main__":
    main()

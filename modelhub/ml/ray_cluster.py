"""The Ray cluster of RAY_ADDRESS, or one that lives as long as the program that began it."""

import os
import sys
from typing import Any

# Ray gives a cluster of its own 30 seconds to begin, whatever else the machine is doing.
_ATTEMPTS = 4


def cluster_join(**options: Any) -> None:
    """Join the cluster of RAY_ADDRESS, or begin one here; `options` are those of `ray.init`.

    Raises ModuleNotFoundError without the extra `ray`, and what Ray raised of the last attempt:
    one at a cluster that is given, four at one of its own.
    """
    import ray

    # Ray tells its makers of every cluster unless it is asked not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    for attempts_left in reversed(range(1 if address else _ATTEMPTS)):
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, **options)
            return
        except Exception as error:  # Ray's own is no narrower
            if not attempts_left:
                raise
            print(f"Ray did not begin, trying again: {error}", file=sys.stderr, flush=True)
            ray.shutdown()

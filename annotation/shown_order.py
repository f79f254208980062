"""The order in which an annotator sees a task's answers. Plain Python.

Not the sampled order, and not a random one either: a function of the assignment's seed, so that a
reload shows the same page and the order can be reproduced, by anyone, for ever.
"""

import hashlib
from collections.abc import Iterable


def order_shuffled(uids: Iterable[str], *, seed: int) -> list[str]:
    """The uids in the order of sha256("seed:uid"): whatever order they are given in, one result."""
    return sorted(uids, key=lambda uid: hashlib.sha256(f"{seed}:{uid}".encode()).digest())

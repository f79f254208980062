"""The methods, each in one table: what it reads, what comes of it, how to set it.

A page, the API and a command launch every method from here. A new one is a configuration class
(alignment/ml/configs/), its program (settings.RUN_PROGRAMS) and an entry of a table of this
package. Plain Python, standard library only.
"""

from alignment.methods.answers import ANSWERS
from alignment.methods.method import Input, Method, Preset
from alignment.methods.policies import POLICY_METHODS
from alignment.methods.pretraining import PRETRAINING
from alignment.methods.rewards import REWARDS
from alignment.methods.versions import VERSIONS

# By what they are for, in the order of a round.
FAMILIES: dict[str, tuple[Method, ...]] = {
    "policies": POLICY_METHODS,
    "rewards": REWARDS,
    "answers": ANSWERS,
    "versions": VERSIONS,
    "pretraining": PRETRAINING,
}
METHODS: dict[str, Method] = {
    method.name: method for family in FAMILIES.values() for method in family
}

__all__ = ["FAMILIES", "METHODS", "Input", "Method", "Preset"]

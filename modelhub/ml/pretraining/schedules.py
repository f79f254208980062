"""The learning rate over a run. Pure functions of the step."""

import math

from modelhub.ml.pretraining.configs import PretrainConfig


def learning_rate(step: int, config: PretrainConfig) -> float:
    """The rate of step 0 … steps − 1."""
    schedule = cosine_rate if config.schedule == "cosine" else wsd_rate
    return config.lr * schedule(
        step,
        steps=config.steps,
        warmup_steps=config.warmup_steps,
        final_share=config.lr_final_share,
        **({"decay_share": config.decay_share} if config.schedule == "wsd" else {}),
    )


def cosine_rate(step: int, *, steps: int, warmup_steps: int, final_share: float) -> float:
    """Share of the peak: linear up to 1, then half a cosine down to `final_share`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return final_share + (1 - final_share) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def wsd_rate(
    step: int, *, steps: int, warmup_steps: int, final_share: float, decay_share: float
) -> float:
    """Share of the peak: linear up to 1, level, then over the last `decay_share` down again.

    The decay is 1 − √t, which Hägele et al. 2024 (arXiv:2405.18392, section 3) found best of those
    they tried for the schedule of Hu et al. 2024 (arXiv:2404.06395). A level run can be taken up
    again and lengthened, where a cosine has to know its end.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    decay_steps = max(1, round(decay_share * steps))
    begun = step - (steps - decay_steps)
    if begun < 0:
        return 1.0
    return final_share + (1 - final_share) * (1 - math.sqrt((begun + 1) / decay_steps))

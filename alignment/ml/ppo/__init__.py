"""Proximal policy optimisation: the policy learns to write what is rewarded, near where it was.

    maximise  E_{x, y ~ π} [ r(x, y) − β KL(π ‖ π_ref) ]  + γ E_{x ~ pretraining} [ log π(x) ]

Ziegler et al. 2019 (arXiv:1909.08593), Ouyang et al. 2022 (arXiv:2203.02155), Touvron et al. 2023
(arXiv:2307.09288); the steps are Schulman et al. 2017's (arXiv:1707.06347). Read it in this order:

    losses     the arithmetic: KL penalty, advantages, clipped losses, the KL's controller
    networks   actor, critic and reference, and what they say of the tokens of a row
    rewards    what scores an answer: a reward model, two of them, or a checker
    sampling   answers from an engine that takes the actor's weights, and the canary that watches it
    inputs     prompts to train on and held out, and the checks of what reads them
    batch      what a step learns from: log-probabilities, values, rewards, advantages
    updates    minibatches, their gradients, and the two networks that learn
    training   all steps of a run; checkpoints and tripwires
    outcome    held-out scores before and after, and the policy published
    __main__   the run

A prompt is paid once for all its answers, in every forward and backward pass (`shared_prefix`).

By hand: `python -m alignment.ml.ppo RUN_DIR`.
"""

"""Methods that learn from the answers they draw, several to a prompt, with no critic.

An answer is weighed against the others to its own prompt, so nothing has to learn what answers are
worth. Sampling, rewards, log-probabilities and publishing are PPO's own (`alignment.ml.ppo`); a
prompt is paid once for all its answers (`shared_prefix`). Read it in this order:

    losses     the arithmetic: advantages within a prompt, which tokens count how much
    redraw     a step's answers, prompts that tell nothing replaced by others
    batch      what a step learns from: log-probabilities of the policy and of the reference
    updates    the policy that learns, its passes and minibatches
    training   all steps of a run, and the run from inputs to the published policy
    rloo       REINFORCE leave-one-out
    grpo       group relative policy optimisation, with Dr. GRPO's and DAPO's changes
    dpo        online DPO: the better and the worse of the answers

By hand: `python -m alignment.ml.online.rloo RUN_DIR`, and so on.
"""

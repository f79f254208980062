"""The reward model: a score for an answer, learnt from people's rankings.

    loss = mean over rankings of  −1/|P| Σ_{(w, l) ∈ P} log σ(r(x, y_w) − r(x, y_l) − margin)

with P the untied pairs of a ranking (Ouyang et al. 2022, arXiv:2203.02155, eq. 1; the margin is
Touvron et al. 2023's, arXiv:2307.09288, section 3.2.2). r is a linear head on the policy's own
checkpoint, read at the answer's last token, the end of its turn where it ended, so that an answer
that was cut off can be told from one that was finished; or at a `<|reward|>` token behind that. The
prompt is paid once for all its answers and all their rankings (`alignment.ml.shared_prefix`).

    examples   which rankings are trained on; what is refused, and what is said, before a run
    training   the loss, the loop, `main`: the program, to be read top to bottom
    model      the base with its head or heads, the reward token, adapters, the zero of the scores
    report     how well scores agree with people: by degree, by length, by writer, calibration
    baselines  what an answer's length, or its words, would have told

By hand: `python -m alignment.ml.reward RUN_DIR`.
"""

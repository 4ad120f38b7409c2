"""Finished runs of studies of language models with given numbers."""

from analyses.llm.finished import studied


def parts_arm(name, rank, loss=0.05):
    """Two runs that know all they were told and have an untold mean rank at every step."""
    history = {"step": [0, 20], studied.TOLD_LOGPROB: [-2.0, -loss], studied.HELD_OUT: [rank, rank]}
    history |= {studied.FACTS: [2.0, 0.0], studied.TOLD: [2.0, 0.0]}
    return studied.Arm(name, {key: {"history": history} for key in (0, 1)})

"""What the columns of a history mean, each with its answer set or reference, and when it is undefined."""

from __future__ import annotations

import re

from ocr_interp.task import SPLITS

_BY_SPLIT = {
    "loss": "cross-entropy over the whole vocabulary, nats, mean over the split",
    "loss_in_set": "cross-entropy over the right answer's own set alone (facts or the implications of its "
    "relation), nats, mean",
    "accuracy": "share of examples whose right answer beats all other answers, facts and implications; a tie "
    "does not count",
    "accuracy_in_set": "share of examples whose right answer beats the other answers of its own set",
    "margin": "smallest logit difference between the right answer and another answer of its own set",
}
_ONCE = {
    "step": "number of updates",
    "train_loss": "mean loss of the batches since the row before, nats; NaN at step 0, before any batch",
    "train_margin": "smallest logit difference between the right answer and any other answer, over the "
    "trained splits",
    "held_out_margin": "smallest logit difference between a held-out subject's implication and another "
    "implication; NaN without held-out subjects",
    "nuclear_norm": "sum of the singular values of diag(a) W_OV, subjects and relations by answers, logits; "
    "with routed experts, of their matrices stacked; so for the next two rows",
    "frobenius_norm": "Frobenius norm of the same matrix, logits",
    "effective_rank": "exp of the entropy of its normalised singular values",
    "beta": "held-out implications' coefficient over training implications' in diag(a) W_OV, of "
    "routed prompts in the mixture of each subject's own; noise before training, a ratio of two random "
    "numbers near 0; NaN without one of them",
}
_BY_NORM = {
    "gap": "certified upper bound of the relative distance of the {norm} norm at margin 1 from the smallest "
    "possible one; inf while a training margin is <= 0, NaN if no certificates were computed, or prompts are "
    "routed, which have no single W_OV",
    "excess": "relative distance of the {norm} norm at margin 1 from that of the closed form; inf while a "
    "training margin is <= 0, NaN for a task or a norm without a closed form and for routed prompts",
    "cosine": "cosine of diag(a) W_OV with the {norm}-norm max-margin solution, as vectors, all inputs by "
    "the vocabulary; NaN without a closed form and for routed prompts",
}
_OF_EXPERTS = {
    "score": "mean score of the expert: its weight in the softmax of a router before others are dropped, "
    "over trained prompts, or their tokens where tokens are routed",
    "share": "share of these for which the expert is among the top_k, or the first with top_k=0",
}
_OF_ROUTERS = {
    "entropy": "mean entropy of the scores, nats; NaN while no router is used",
    "balance_loss": "balance x sum of score x share - entropy (the option) x mean entropy: the term of the "
    "loss beside the cross-entropy; NaN while no router is used",
    "anchor_loss": "anchor x squared distance of the experts from where the router took over; NaN without it",
}


def column_meaning(name: str) -> str | None:
    """What a column of a history holds, in one phrase; None for a column that this version does not write.

    Columns of earlier versions have the same names and meanings.
    """
    if name in _ONCE:
        return _ONCE[name]
    if found := re.fullmatch(r"beta/(r\d+)", name):
        return (
            f"beta of {found[1]}'s implications alone; noise before training; NaN without told or untold ones"
        )
    split, _, column = name.partition("/")
    relation, _, last = column.rpartition("/")
    if split in SPLITS and last in _BY_SPLIT and re.fullmatch(r"(r\d+)?", relation):
        of = split.replace("held_out", "held-out").replace("_", " ")
        asked = f" of {relation}" if relation else ""
        return f"{of}s{asked}: {_BY_SPLIT[last]}; NaN if the task has none"
    if split == "router" or re.fullmatch(r"expert\d+", split):
        return (_OF_ROUTERS if split == "router" else _OF_EXPERTS).get(column)
    found = re.fullmatch(r"(gap|excess|cosine)_(\w+)", name)
    return None if found is None else _BY_NORM[found[1]].format(norm=found[2])


def glossary() -> list[tuple[str, str]]:
    """(column, meaning) with <split>, <norm> and <k> in place of their names, for the documentation."""
    by_split = [(f"<split>/{name}", about) for name, about in _BY_SPLIT.items()]
    by_norm = [(f"{name}_<norm>", about.format(norm="<norm>")) for name, about in _BY_NORM.items()]
    of_experts = [(f"expert<k>/{name}", about) for name, about in _OF_EXPERTS.items()]
    of_routers = [(f"router/{name}", about) for name, about in _OF_ROUTERS.items()]
    return [*_ONCE.items(), *by_split, *by_norm, *of_experts, *of_routers]

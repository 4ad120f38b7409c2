"""The mechanism of a fact-recall model without parts of it: what remains of every answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from ocr_interp.errors import unknown_name
from ocr_interp.graphs.graph import CircuitGraph
from ocr_interp.graphs.mechanism_graph import mechanism_graph
from ocr_interp.maps.routed import Routed
from ocr_interp.models.weights import TokenWeights
from ocr_interp.task import FactRecallTask
from ocr_interp.training.run import Snapshot

ATTENTION, PATH = "attention to ", "held-out subjects → implications"
"""What can be removed: attention to a kind of token, and the part of W_OV that training never asked for."""

UNSEEN = -1e4
"""Score whose exponential is 0 in every precision: softmax attention passes the token by."""


def removable(run: Snapshot) -> tuple[str, ...]:
    """Parts that `ablated_mechanism` can remove from a model, in the order of the prompt.

    With softmax attention EOS stays, so that there is something left to attend to. Of routed experts only
    attention can be removed: the path would be one of each expert.
    """
    names = [name for name in _kinds(run.task) if name != "noise" or run.config.has_noise]
    if run.config.model.attention == "softmax":
        names.remove("EOS")
    held_out = "held-out subjects" in names and not isinstance(run.weights.linear_map, Routed)
    return (*(f"{ATTENTION}{name}" for name in names), *([PATH] if held_out else []))


def ablated_mechanism(
    run: Snapshot, parts: Sequence[str], *, max_subjects: int = 6, expert: int | None = None
) -> CircuitGraph:
    """`mechanism_graph` of a model from which parts are removed.

    Attention to a kind of token is set to zero; with softmax attention the rest then shares what it had.
    The path sets the entries of W_OV from held-out subjects to implications to zero.

    Args:
        run: a Run or Snapshot; it does not change.
        parts: names from `removable(run)`; none leaves the model as it is.
        max_subjects, expert: as in `mechanism_graph`.

    Raises:
        UnknownNameError: a part that this model does not have.
        ModelError: a model that routes prompts, without an expert.

    >>> from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, train
    >>> recipe = TrainConfig(steps=20, batch_size=12, device="cpu")
    >>> run = train(FactRecallTask(3, 1, 2), ModelConfig(d_head=8), recipe, progress=False)
    >>> ablated_mechanism(run, ["attention to r1"]).through("token r1")
    0.0
    """
    known = removable(run)
    for part in parts:
        if part not in known:
            raise unknown_name("part of this model", part, known)
    weights, softmax = run.weights, run.config.model.attention == "softmax"
    scores = weights.W_QK.clone()
    for name, tokens in _kinds(run.task).items():
        if f"{ATTENTION}{name}" in parts:
            scores[run.task.eos_token, tokens] = UNSEEN if softmax else 0.0
    if PATH in parts:
        weights = TokenWeights.of_factors(_without_path(weights.W_OV, run.task), None, scores)
    else:
        weights = dataclasses.replace(weights, W_QK=scores)
    found = mechanism_graph(Snapshot(run.config, run.step, weights), max_subjects=max_subjects, expert=expert)
    if not parts:
        return found
    return dataclasses.replace(found, title=f"{found.title} without {' and '.join(parts)}")


def _kinds(task: FactRecallTask) -> dict[str, list[int]]:
    """Kind of input token -> its ids."""
    kinds = {
        name: [k for k in range(task.n_subjects) if bool(task.subject_trained[k]) is told]
        for name, told in (("training subjects", True), ("held-out subjects", False))
    }
    kinds |= {task.labels[token]: [token] for token in task.relation_tokens}
    kinds |= {"noise": list(task.noise_tokens), "EOS": [task.eos_token]}
    return {name: tokens for name, tokens in kinds.items() if tokens}


def _without_path(W_OV: Tensor, task: FactRecallTask) -> Tensor:
    """A copy without the entries from held-out subjects to implications."""
    found = W_OV.detach().clone()
    rows = _kinds(task)["held-out subjects"]
    found[rows, task.n_inputs + task.n_facts :] = 0.0
    return found

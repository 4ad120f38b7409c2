"""The mechanism of a fact-recall model as a whole: which tokens write which answers, over all prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.checks import check_choice, check_count
from ocr_interp.circuits.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.circuits.ov_circuit import OVCircuit
from ocr_interp.task import SPLITS, FactRecallTask
from ocr_interp.training.runs import Snapshot

ANSWER_SETS = ("facts", "implications")


@dataclass(frozen=True)
class _Sources:
    """Input tokens in groups that become nodes.

    Attributes:
        names: of the groups, e.g. "training subjects", or of single subjects.
        blocks: name of the group's rows in the OV circuit.
        of_input: index of every input token's group.
    """

    names: tuple[str, ...]
    blocks: tuple[str, ...]
    of_input: Int[np.ndarray, " input"]


def mechanism_graph(run: Snapshot, *, max_subjects: int = 6, among: str = "answers") -> CircuitGraph:
    """Token groups, attention, blocks of the OV circuit, and the answers to all kinds of questions.

    An answer node stands for a split: the right answer's logit minus the mean of the wrong ones, averaged
    over the split's triples, each with average noise. Its edges say who contributes that: the subject, the
    relation, noise, EOS. The edge from held-out subjects to their implications was never trained.

    Args:
        run: a Run or Snapshot.
        max_subjects: a task with at most that many subjects has a node for each; else they are grouped.
        among: wrong answers are all "answers", or those of the right answer's "set", where relations
            cancel.

    Raises:
        ConfigError: another word for `among`.
    """
    check_choice("among", among, ("answers", "set"))
    check_count("max_subjects", max_subjects, 0)
    task, circuit = run.task, OVCircuit.from_run(run)
    sources = _sources(task, one_by_one=task.n_subjects <= max_subjects)
    splits = [split for split in SPLITS if len(task.triples.of_split(split))]
    prompts = _Prompts(circuit, task, among)
    nodes, edges, effects = [], [], []
    shares = {split: prompts.by_source(split, sources) for split in splits}
    for k, name in enumerate(sources.names):
        members = tuple(task.labels[i] for i in np.flatnonzero(sources.of_input == k))
        shown = f"{name} ({len(members)})" if len(members) > 1 else name
        a = float(np.mean([prompts.attention[split][sources.of_input == k].sum() for split in splits]))
        nodes.append(Node(f"token {name}", "token", shown, members))
        nodes.append(Node(f"attention {name}", "attention", f"attention\n{a:.3g}", members))
        whole = float(sum(shares[split][k] for split in splits))
        edges.append(Edge(f"token {name}", f"attention {name}", whole))
    into_block: dict[tuple[str, str, str], float] = {}
    for k, name in enumerate(sources.names):
        for split in splits:
            block = f"{sources.blocks[k]} → {_answer_set(split)}"
            if not prompts.occurs(split, sources.of_input == k):
                continue
            key = (name, block, split)
            into_block[key] = into_block.get(key, 0.0) + float(shares[split][k])
    edges += _attention_edges(into_block)
    for block in dict.fromkeys(block for _, block, _ in into_block):
        nodes.append(Node(block, "ov_block", block.replace(" → ", "\n→ ")))
    edges += _answer_edges(into_block)
    for split in splits:
        node = f"answer {split}"
        status, kind = split.rsplit("_", 1)
        label = f"own {kind} of\n{status.replace('_', '-')} subjects"
        nodes.append(Node(node, "answer", label))
        effects.append(Effect(node, prompts.total(split)))
    against = "all wrong answers" if among == "answers" else "wrong answers of the same set"
    exact = "exact for average noise" if circuit.attention == "linear" else "at average scores of noise"
    return CircuitGraph(
        title=run.config.model.ov.replace("_", "-"),
        nodes=tuple(nodes),
        edges=tuple(edges),
        effects=tuple(effects),
        statement=f"right answer minus the mean of {against}, mean over triples; {exact}",
        source=circuit.provenance.summary(),
        fingerprint=circuit.provenance.fingerprint,
    )


def _answer_set(split: str) -> str:
    return ANSWER_SETS[int(split.endswith("implication"))]


def _is_untold(block: str) -> bool:
    return block == "held-out subjects → implications"


def _attention_edges(flows: dict[tuple[str, str, str], float]) -> list[Edge]:
    """From attention nodes to OV blocks, summed over answers."""
    found: dict[tuple[str, str], float] = {}
    for (name, block, _), value in flows.items():
        found[name, block] = found.get((name, block), 0.0) + value
    return [
        Edge(f"attention {name}", block, value, "untold" if _is_untold(block) else "told")
        for (name, block), value in found.items()
    ]


def _answer_edges(flows: dict[tuple[str, str, str], float]) -> list[Edge]:
    """From OV blocks to answers, summed over sources."""
    found: dict[tuple[str, str], float] = {}
    for (_, block, split), value in flows.items():
        found[block, split] = found.get((block, split), 0.0) + value
    return [
        Edge(block, f"answer {split}", value, "untold" if _is_untold(block) else "told")
        for (block, split), value in found.items()
    ]


def _sources(task: FactRecallTask, one_by_one: bool) -> _Sources:
    status = np.where(task.subject_trained, "training subjects", "held-out subjects")
    groups = list(task.labels[: task.n_subjects]) if one_by_one else list(map(str, status))
    others = ["r1", "r2", *(["noise"] * task.n_noise), "EOS"]
    if one_by_one:
        held_out = np.flatnonzero(~task.subject_trained)
        groups = [f"{label} held out" if k in held_out else label for k, label in enumerate(groups)]
        order = list(np.argsort(~task.subject_trained, kind="stable"))
        names = [groups[k] for k in order]
    else:
        names = [name for name in ("training subjects", "held-out subjects") if name in groups]
    of_name = {name: str(status[k]) for k, name in enumerate(groups)}
    names += list(dict.fromkeys(others))
    blocks = tuple(of_name.get(name, name) for name in names)
    of_input = np.array([names.index(name) for name in [*groups, *others]])
    return _Sources(tuple(names), blocks, of_input)


class _Prompts:
    """All triples of a task, each as one prompt with average noise, and what every input adds to it."""

    def __init__(self, circuit: OVCircuit, task: FactRecallTask, among: str) -> None:
        self.task = task
        triples = task.triples
        n = len(triples)
        counts = np.zeros((n, task.n_inputs))
        counts[np.arange(n), triples.subject] += 1
        counts[np.arange(n), task.n_subjects + triples.relation] += 1
        if task.n_noise:
            counts[:, list(task.noise_tokens)] = (task.seq_len - 3) / task.n_noise
        counts[:, task.eos_token] += 1
        self.counts, self.split = counts, triples.split
        assert circuit.scores is not None
        linear = circuit.attention == "linear"
        weights = counts * (circuit.scores if linear else np.exp(circuit.scores))
        self.weights = weights if linear else weights / weights.sum(1, keepdims=True)
        is_fact = np.arange(task.n_answers) < task.n_facts
        wrong = np.ones((n, task.n_answers))
        if among == "set":
            wrong = (is_fact[None] == (triples.answer < task.n_facts)[:, None]).astype(float)
        wrong[np.arange(n), triples.answer] = 0
        direction = -wrong / wrong.sum(1, keepdims=True)
        direction[np.arange(n), triples.answer] = 1
        self.parts: Float[np.ndarray, "triple input"] = self.weights * (direction @ circuit.W.T)
        self.totals = ((self.weights @ circuit.left) @ circuit.right * direction).sum(1)

    def by_source(self, split: str, sources: _Sources) -> Float[np.ndarray, " source"]:
        """Mean contribution of every source to a split's logit difference."""
        mean = self.parts[self.split == SPLITS.index(split)].mean(0)
        return np.bincount(sources.of_input, mean, minlength=len(sources.names))

    def occurs(self, split: str, members: np.ndarray) -> bool:
        """Whether any prompt of a split holds one of some inputs."""
        return bool(self.counts[self.split == SPLITS.index(split)][:, members].any())

    def attention_when_present(self, members: np.ndarray) -> float:
        """What EOS gives to some inputs together, mean over the prompts that hold one of them."""
        present = self.counts[:, members].any(1)
        return float(self.weights[present][:, members].sum(1).mean()) if present.any() else 0.0

    def total(self, split: str) -> float:
        """Mean logit difference of a split, computed without taking it apart."""
        return float(self.totals[self.split == SPLITS.index(split)].mean())

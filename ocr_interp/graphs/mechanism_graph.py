"""The mechanism of a fact-recall model as a whole: which tokens write which answers, over all prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ocr_interp.checks import check_count
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.task import SPLITS, FactRecallTask
from ocr_interp.training.run import Snapshot

UNTOLD_BLOCK = "held-out subjects → own implication"
"""The part of the OV circuit that training never asked for."""


@dataclass(frozen=True)
class _Sources:
    """Input tokens in groups that become nodes.

    Attributes:
        names: of the groups, e.g. "training subjects", or of single subjects.
        blocks: name of the group's rows in the OV circuit.
        of_input: index of every input token's group; -1 for noise that no prompt holds.
    """

    names: tuple[str, ...]
    blocks: tuple[str, ...]
    of_input: Int[np.ndarray, " input"]


def mechanism_graph(run: Snapshot, *, max_subjects: int = 6, expert: int | None = None) -> CircuitGraph:
    """Token groups, attention, parts of the OV circuit, and the answers to all kinds of questions.

    An answer node stands for a split: the right answer's logit minus the mean over all answers, averaged
    over the split's triples, each with average noise. It is the sum of what every token of the prompt
    contributes; a subject's contribution is split into what favours its own answer within the right set
    ("→ own implication": own minus mean of the set) and what favours the set ("→ set of implications").
    Held-out subjects → own implication was never trained: a model that generalizes has it, a model that does
    not lacks it. If a fact has several implications, the right set is those of the asked relation, and a
    split is the mean over all of them.

    Args:
        run: a Run or Snapshot.
        max_subjects: a task with at most this many subjects gets one node per subject; else they are grouped.
        expert: of routed experts, whose circuit is drawn, as if it had all prompts.
    """
    check_count("max_subjects", max_subjects, 0)
    task, circuit = run.task, OVCircuit.from_run(run, raw=True, expert=expert)
    noise = task.n_noise if run.config.has_noise else 0
    sources = _sources(task, noise, one_by_one=task.n_subjects <= max_subjects)
    splits = [split for split in SPLITS if len(task.triples.of_split(split))]
    prompts = _Prompts(circuit, task, noise)
    flows = _flows(prompts, sources, splits)
    nodes, edges = [], []
    for k, name in enumerate(sources.names):
        members = tuple(task.labels[i] for i in np.flatnonzero(sources.of_input == k))
        shown = f"{name} ({len(members)})" if len(members) > 1 else name
        nodes.append(Node(f"token {name}", "token", shown, members))
        a = prompts.attention_when_present(sources.of_input == k)
        nodes.append(Node(f"attention {name}", "attention", f"attends\n{a:.3g}", members))
        whole = sum(value for (source, _, _), value in flows.items() if source == name)
        edges.append(Edge(f"token {name}", f"attention {name}", whole))
    for block in dict.fromkeys(block for _, block, _ in flows):
        nodes.append(Node(block, "ov_block", block.replace(" → ", "\n→ ")))
    edges += _summed({(f"attention {s}", b, t): value for (s, b, t), value in flows.items()}, keep=(0, 1))
    edges += _summed({(s, b, f"answer {t}"): value for (s, b, t), value in flows.items()}, keep=(1, 2))
    for split in splits:
        status, kind = split.rsplit("_", 1)
        label = f"own {kind} of\n{status.replace('_', '-')} subjects"
        nodes.append(Node(f"answer {split}", "answer", label))
    said = "exact for average noise" if circuit.attention == "linear" else "at average scores of noise"
    said = said if noise else "exact, prompts without noise"
    return CircuitGraph(
        title=run.config.model.ov.replace("_", "-") + ("" if expert is None else f", expert {expert}"),
        nodes=tuple(nodes),
        edges=tuple(edges),
        effects=tuple(Effect(f"answer {split}", prompts.total(split)) for split in splits),
        statement=f"right answer's logit minus the mean over all answers, mean over triples; {said}",
        source=circuit.provenance.summary(),
        fingerprint=circuit.provenance.fingerprint,
    )


def _flows(prompts: _Prompts, sources: _Sources, splits: list[str]) -> dict[tuple[str, str, str], float]:
    """(source, part of the OV circuit, split) -> mean contribution in logits."""
    found: dict[tuple[str, str, str], float] = {}
    for k, name in enumerate(sources.names):
        members = sources.of_input == k
        for split in splits:
            if not prompts.occurs(split, members):
                continue
            own, of_set = prompts.contributions(split, members)
            kind = split.rsplit("_", 1)[1]
            if sources.blocks[k].endswith("subjects"):
                found[name, f"{sources.blocks[k]} → own {kind}", split] = own
                found[name, f"subjects → set of {kind}s", split] = of_set
            else:
                found[name, f"{sources.blocks[k]} → set of {kind}s", split] = own + of_set
    return found


def _summed(flows: dict[tuple[str, str, str], float], keep: tuple[int, int]) -> list[Edge]:
    """Edges between two of (source, block, answer), summed over the third."""
    found: dict[tuple[str, str], float] = {}
    for key, value in flows.items():
        ends = (key[keep[0]], key[keep[1]])
        found[ends] = found.get(ends, 0.0) + value
    return [Edge(*ends, value, "untold" if UNTOLD_BLOCK in ends else "told") for ends, value in found.items()]


def _sources(task: FactRecallTask, noise: int, one_by_one: bool) -> _Sources:
    status = np.where(task.subject_trained, "training subjects", "held-out subjects")
    groups = list(task.labels[: task.n_subjects]) if one_by_one else list(map(str, status))
    relations = [task.labels[token] for token in task.relation_tokens]
    others = [*relations, *(["noise"] * task.n_noise), "EOS"]
    if one_by_one:
        held_out = np.flatnonzero(~task.subject_trained)
        groups = [f"{label} held out" if k in held_out else label for k, label in enumerate(groups)]
        order = list(np.argsort(~task.subject_trained, kind="stable"))
        names = [groups[k] for k in order]
    else:
        names = [name for name in ("training subjects", "held-out subjects") if name in groups]
    of_name = {name: str(status[k]) for k, name in enumerate(groups)}
    names += [name for name in dict.fromkeys(others) if noise or name != "noise"]
    blocks = tuple(of_name.get(name, name) for name in names)
    of_input = np.array([names.index(name) if name in names else -1 for name in [*groups, *others]])
    return _Sources(tuple(names), blocks, of_input)


class _Prompts:
    """All triples of a task, each as one prompt with average noise, and what every input adds to it.

    Args:
        circuit: the raw circuit.
        task: its task.
        noise: number of different noise tokens in prompts; 0 for prompts without noise.
    """

    def __init__(self, circuit: OVCircuit, task: FactRecallTask, noise: int) -> None:
        triples = task.triples
        n = len(triples)
        counts = np.zeros((n, task.n_inputs))
        counts[np.arange(n), triples.subject] += 1
        counts[np.arange(n), task.n_subjects + triples.relation] += 1
        if noise:
            counts[:, list(task.noise_tokens)] = (task.seq_len - 3) / noise
        counts[:, task.eos_token] += 1
        self.counts, self.split = counts, triples.split
        assert circuit.scores is not None
        linear = circuit.attention == "linear"
        # A common shift of the scores leaves a softmax alone and keeps large ones finite.
        weights = counts * (circuit.scores if linear else np.exp(circuit.scores - circuit.scores.max()))
        self.weights = weights if linear else weights / weights.sum(1, keepdims=True)
        of_set = (task.answer_relation == triples.relation[:, None]).astype(float)
        of_set /= of_set.sum(1, keepdims=True)
        right = np.zeros((n, task.n_answers))
        right[np.arange(n), triples.answer] = 1
        self.own: Float[np.ndarray, "triple input"] = self.weights * ((right - of_set) @ circuit.W.T)
        self.of_set: Float[np.ndarray, "triple input"] = self.weights * (
            (of_set - 1 / task.n_answers) @ circuit.W.T
        )
        logits = (self.weights @ circuit.left) @ circuit.right
        self.totals = logits[np.arange(n), triples.answer] - logits.mean(1)

    def contributions(self, split: str, members: Bool[np.ndarray, " input"]) -> tuple[float, float]:
        """(for the own answer within its set, for the set) of some inputs, mean over a split."""
        chosen = np.ix_(self.split == SPLITS.index(split), members)
        return float(self.own[chosen].sum(1).mean()), float(self.of_set[chosen].sum(1).mean())

    def occurs(self, split: str, members: Bool[np.ndarray, " input"]) -> bool:
        """Whether any prompt of a split holds one of some inputs."""
        return bool(self.counts[self.split == SPLITS.index(split)][:, members].any())

    def attention_when_present(self, members: Bool[np.ndarray, " input"]) -> float:
        """Size |a| of what EOS gives to some inputs together, mean over the prompts that hold one of them.

        Sizes, since with linear attention a token's sign is arbitrary: a and its row of W_OV may both flip.
        """
        present = self.counts[:, members].any(1)
        return float(np.abs(self.weights[present][:, members]).sum(1).mean()) if present.any() else 0.0

    def total(self, split: str) -> float:
        """Mean centred logit of a split's right answers, computed without taking it apart."""
        return float(self.totals[self.split == SPLITS.index(split)].mean())

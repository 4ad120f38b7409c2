"""Graphs of a single prompt: of a fact-recall model, or of the heads of any model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_count
from ocr_interp.circuits.attribution.of_run import Attribution, attribute_run
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ModelError
from ocr_interp.graphs.answers import right_answer, strongest_other
from ocr_interp.graphs.circuit_graph import NULL
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.training.run import Snapshot


def prompt_graph(
    run: Snapshot,
    prompt: Sequence[int | str],
    answer: int | str | None = None,
    against: int | str | None = None,
    *,
    tolerance: float = 0.05,
    max_blocks: int = 4,
) -> CircuitGraph:
    """Tokens of a prompt, what EOS attends to, degenerate OV blocks, and a logit difference.

    Args:
        run: a fact-recall Run or Snapshot.
        prompt: token ids or labels of inputs, EOS last. Of a model that routes prompts to experts, their
            mixture for this prompt is drawn.
        answer: the answer that is explained; None is the right one.
        against: the answer whose logit is subtracted; None is the strongest other one of this run.
        tolerance: of the degenerate blocks of diag(a) W_OV, see `OVCircuit.spectrum`.
        max_blocks: number of blocks with nodes of their own, largest singular values first; the rest share a
            node.

    Raises:
        UnknownNameError: an unknown token, or one that is no input or no answer.
        ModelError: a prompt that does not end with EOS.
        ConfigError: no answer given, and a prompt that has none.
    """
    check_count("max_blocks", max_blocks, 1)
    if not len(prompt) or prompt[-1] not in ("EOS", run.task.eos_token):
        shown = " ".join(map(str, prompt))
        raise ModelError(f"prompt must end with the query 'EOS', got {shown!r}: add 'EOS' at its end")
    answer = right_answer(run, prompt) if answer is None else answer
    against = strongest_other(run, prompt, answer) if against is None else against
    found = attribute_run(run, prompt, answer, against)
    routes = run.weights.linear_map.n_routes is not None
    circuit = OVCircuit.from_run(run, prompt=found.tokens) if routes else run.circuit
    names = _grouped_tokens(found.tokens, found.kinds)
    rows = [circuit.inputs.positions([found.tokens[k] for k in members]) for _, members in names]
    own, other = circuit.outputs.positions([found.answer, str(found.against)])
    spectrum = circuit.spectrum(tolerance, NULL)
    parts = [block.component[:, own] - block.component[:, other] for block in spectrum.blocks]
    labels = [
        f"OV block {k}\nσ = {block.value:.3g}"
        + (f" × {block.multiplicity}" if block.multiplicity > 1 else "")
        for k, block in enumerate(spectrum.blocks)
    ]
    if len(parts) > max_blocks:
        rest = f"{len(parts) - max_blocks} smaller\nOV blocks"
        parts = [*parts[:max_blocks], np.sum(parts[max_blocks:], axis=0)]
        labels = [*labels[:max_blocks], rest]
    # With softmax the effective circuit still has to be divided by the prompt's sum of exp(score).
    weights = _PromptAttention(circuit, found.tokens)
    norm = weights.normaliser
    table = np.array([[part[r].sum() / norm for part in parts] for r in rows])
    tokens = [
        Node(
            f"token {t}",
            "token",
            label + (f" ({len(members)})" if len(members) > 1 else ""),
            tuple(found.tokens[k] for k in members),
        )
        for t, (label, members) in enumerate(names)
    ]
    answer_node = Node("answer", "answer", f"{found.answer} − {found.against}", (found.answer,))
    attention = [float(weights.values[members].sum()) for _, members in names]
    nodes, edges = through_blocks(tokens, attention, labels, table, answer_node)
    kind = run.config.model.ov.replace("_", "-")
    return CircuitGraph(
        title=f"{kind}: {found.answer} − {found.against} after {_shortened(found.tokens)}",
        nodes=nodes,
        edges=edges,
        effects=(Effect("answer", found.total),),
        statement=found.statement,
        source=circuit.provenance.summary(),
        fingerprint=circuit.provenance.fingerprint,
    )


def through_blocks(
    tokens: Sequence[Node],
    attention: Sequence[float],
    blocks: Sequence[str],
    table: Float[np.ndarray, "token block"],
    answer: Node,
) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
    """Nodes and edges of a prompt: tokens, attention of the query to each, singular blocks, one answer.

    Args:
        tokens: the token nodes.
        attention: attention of the query to each of them.
        blocks: labels of the blocks.
        table: what each token adds to the answer through each block, in logits.
        answer: the answer node.
    """
    nodes, edges = [], []
    for t, (token, a) in enumerate(zip(tokens, attention, strict=True)):
        label = f"attends\n{a:.3g}".replace("-", "−")
        nodes += [token, Node(f"attention {t}", "attention", label, token.members)]
        edges.append(Edge(token.name, f"attention {t}", float(table[t].sum())))
        edges += [Edge(f"attention {t}", f"block {k}", float(table[t, k])) for k in range(len(blocks))]
    nodes += [Node(f"block {k}", "ov_block", label) for k, label in enumerate(blocks)]
    edges += [Edge(f"block {k}", answer.name, float(table[:, k].sum())) for k in range(len(blocks))]
    return (*nodes, answer), tuple(edges)


def attribution_graph(attribution: Attribution) -> CircuitGraph:
    """Tokens, heads and the answer of an Attribution of any model, with the direct path and the biases."""
    a = attribution
    nodes = [Node(f"token {t}", "token", f"{label}", (label,)) for t, label in enumerate(a.tokens)]
    edges: list[Edge] = []
    heads = []
    for row, (layer, head) in zip(a.contributions, a.heads, strict=True):
        name = f"L{layer}H{head}"
        heads.append(Node(name, "attention", f"attention\n{name}"))
        heads.append(Node(f"OV {name}", "ov_block", f"OV circuit\n{name}"))
        edges += [Edge(f"token {t}", name, float(value)) for t, value in enumerate(row)]
        edges.append(Edge(name, f"OV {name}", float(row.sum())))
        edges.append(Edge(f"OV {name}", "answer", float(row.sum())))
    for name, label, value in (("direct", "direct path", a.direct), ("bias", "biases", a.bias)):
        if value:
            heads.append(Node(name, "source", label))
            edges.append(Edge(name, "answer", value))
    shown = a.answer if a.against is None else f"{a.answer} − {a.against}"
    # The decomposition holds to the model's own precision; the graph closes exactly on its own sum.
    total = float(a.contributions.sum(1).sum() + a.direct + a.bias)
    return CircuitGraph(
        title=f"{shown} after {_shortened(a.tokens)}",
        nodes=(*nodes, *heads, Node("answer", "answer", shown, (a.answer,))),
        edges=tuple(edges),
        effects=(Effect("answer", total),),
        statement=a.statement,
        source=f"{a.model}, weights {a.fingerprint}",
        fingerprint=a.fingerprint,
    )


class _PromptAttention:
    """Attention of a prompt's positions: `values`, and the sum of exp(score) that softmax divides by."""

    def __init__(self, circuit: OVCircuit, tokens: Sequence[str]) -> None:
        assert circuit.scores is not None
        scores = circuit.scores[circuit.inputs.positions(tokens)]
        linear = circuit.attention == "linear"
        raw: Float[np.ndarray, " position"] = scores if linear else np.exp(scores)
        self.normaliser = 1.0 if linear else float(raw.sum())
        self.values = raw / self.normaliser


def _grouped_tokens(tokens: Sequence[str], kinds: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Positions of the nodes of a prompt: noise together, all else by itself, in the prompt's order."""
    noise = [k for k, kind in enumerate(kinds) if kind == "noise"]
    found = [(tokens[k], [k]) for k, kind in enumerate(kinds) if kind != "noise"]
    if len(noise) == 1:
        found.insert(len(found) - 1, (tokens[noise[0]], noise))
    elif noise:
        found.insert(len(found) - 1, ("noise", noise))
    return found


def _shortened(tokens: Sequence[str], most: int = 6) -> str:
    if len(tokens) <= most:
        return " ".join(tokens)
    kept = [token for token in tokens if not token.startswith("noise")]
    if len(kept) <= most:
        return f"{' '.join(kept)} and {len(tokens) - len(kept)} noise tokens"
    return f"… {' '.join(tokens[-most:])}"

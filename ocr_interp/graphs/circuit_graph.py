"""The graph of any OV circuit: groups of input tokens, singular blocks, groups of output tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ocr_interp.checks import check_count
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ModelError
from ocr_interp.graphs.graph import CircuitGraph, Edge, Effect, Node
from ocr_interp.hooked.tokens.token_set import TokenSet
from ocr_interp.linalg.spectrum import Spectrum

NULL = 1e-13
"""Singular values below this share of the largest are rounding and belong to no block."""

MEAN_ENTRY = (
    "mean entry of W between two groups, which lifts all answers of a group alike and tells none from "
    "another (pairs=[(input, own answer), ...] does)"
)
"""What a graph without pairs shows."""


@dataclass(frozen=True)
class _Cell:
    """What one group of inputs does to one group of outputs.

    Attributes:
        rows: positions of the input tokens, one per entry.
        own: position of each input token's own answer; None for the mean entry of the whole cell.
        group: positions of the output group.
    """

    rows: Int[np.ndarray, " entry"]
    own: Int[np.ndarray, " entry"] | None
    group: Int[np.ndarray, " output"]

    def mean(
        self, left: Float[np.ndarray, "input direction"], right: Float[np.ndarray, "output direction"]
    ) -> float:
        """The contribution if W were left @ right.T, which is never formed."""
        of_group = right[self.group].mean(0)
        if self.own is None:
            return float(left[self.rows].mean(0) @ of_group)
        return float((left[self.rows] * (right[self.own] - of_group)).sum(1).mean())


def circuit_graph(
    circuit: OVCircuit,
    *,
    pairs: Collection[tuple[str, str]] | None = None,
    untold: Collection[tuple[str, str]] = (),
    tolerance: float = 0.05,
    max_blocks: int = 3,
    title: str | None = None,
) -> CircuitGraph:
    """Groups of input tokens -> singular blocks -> groups of output tokens, as signed mean contributions.

    A contribution is the mean entry of W between an input and an output group, or with `pairs` the mean
    over the pairs of own answer − mean of the answer's group, W[x, y] − mean over y' of W[x, y']: what
    tells the own answer from its rivals. It is split exactly over the degenerate singular blocks of W, and
    every block has a node for each output group, so that no two numbers cancel in one edge.

    Args:
        circuit: of any model, read with named groups of inputs and outputs; pass `.effective` of a
            fact-recall circuit to have attention in it.
        pairs: (input label, own output label); an input may have several. None: mean entries.
        untold: (input group, output group) that training never asked for; drawn as such.
        tolerance: of the degenerate blocks, see `OVCircuit.spectrum`.
        max_blocks: number of blocks with nodes of their own, those that contribute most; the rest share a
            node.
        title: None names the head.

    Returns: an answer node's effect is the sum over input groups of their mean contributions, in logits per
        unit of attention.

    Raises:
        UnknownNameError: a token or group that the circuit does not have.
        ModelError: the same pair twice, or no pairs.
    """
    check_count("max_blocks", max_blocks, 1)
    cells = _mean_cells(circuit) if pairs is None else _pair_cells(circuit, tuple(pairs))
    for group, answer in untold:
        circuit.inputs.of_group(group)
        circuit.outputs.of_group(answer)
    spectrum = circuit.spectrum(tolerance, NULL)
    parts = np.array([_by_block(cell, spectrum) for cell in cells.values()])
    labels, parts = named_blocks(spectrum, parts, max_blocks)
    table = dict(zip(cells, parts, strict=True))
    targets = [name for name in circuit.outputs.group_names if any(key[1] == name for key in cells)]
    edges, effects = [], []
    for target in targets:
        present = [key for key in cells if key[1] == target]
        for k in range(len(labels)):
            name = f"block {k} to {target}"
            for key in present:
                kind = "untold" if key in untold else "told"
                edges.append(Edge(f"in {key[0]}", name, float(table[key][k]), kind))
            through = float(sum(table[key][k] for key in present))
            kind = "untold" if all(key in untold for key in present) else "told"
            edges.append(Edge(name, f"out {target}", through, kind))
        # From W itself and not from its blocks: the graph checks one against the other.
        total = sum(cells[key].mean(circuit.left, circuit.right.T) for key in present)
        effects.append(Effect(f"out {target}", total))
    where = circuit.provenance
    what = MEAN_ENTRY if pairs is None else "own answer minus the mean of its group, mean over pairs"
    return CircuitGraph(
        title=title or f"OV circuit of {where.model}, layer {where.layer}, head {where.head}",
        nodes=_nodes(circuit, cells, labels, own=pairs is not None),
        edges=tuple(edges),
        effects=tuple(effects),
        statement=f"{what}, by singular block of W; answers sum over input groups",
        source=where.summary(),
        fingerprint=where.fingerprint,
    )


def _nodes(
    circuit: OVCircuit, cells: dict[tuple[str, str], _Cell], labels: list[str], own: bool
) -> tuple[Node, ...]:
    """Input groups, a node for every block and output group, output groups."""
    sources, targets = ({key[side] for key in cells} for side in (0, 1))
    inputs, outputs = circuit.inputs, circuit.outputs
    shown = [name for name in outputs.group_names if name in targets]
    nodes = [
        Node(f"in {name}", "token", _counted(name, inputs), _members(name, inputs))
        for name in inputs.group_names
        if name in sources
    ]
    for target in shown:
        for k, label in enumerate(labels):
            nodes.append(Node(f"block {k} to {target}", "ov_block", f"{label}\n→ {target}"))
    for target in shown:
        label = f"own answer in\n{target}" if own else _counted(target, outputs)
        nodes.append(Node(f"out {target}", "answer", label, _members(target, outputs)))
    return tuple(nodes)


def named_blocks(
    spectrum: Spectrum, table: Float[np.ndarray, "row block"], most: int
) -> tuple[list[str], Float[np.ndarray, "row node"]]:
    """Labels of the blocks that contribute most, and the contributions with all others summed up.

    Args:
        spectrum: in degenerate blocks.
        table: contributions of every block.
        most: blocks kept by themselves, in the order of their singular values.
    """
    kept = np.sort(np.argsort(-np.abs(table).sum(0), kind="stable")[:most])
    rest = np.setdiff1d(np.arange(table.shape[1]), kept)
    labels = []
    for k in kept:
        block = spectrum.blocks[k]
        many = f" × {block.multiplicity}" if block.multiplicity > 1 else ""
        labels.append(f"block {k}: σ {block.value:.3g}{many}")
    if not len(rest):
        return labels, table[:, kept]
    labels.append(f"{len(rest)} other block{'s' if len(rest) > 1 else ''}")
    return labels, np.column_stack([table[:, kept], table[:, rest].sum(1)])


def _by_block(cell: _Cell, spectrum: Spectrum) -> Float[np.ndarray, " block"]:
    return np.array([cell.mean(b.input_basis * b.values, b.output_basis) for b in spectrum.blocks])


def _mean_cells(circuit: OVCircuit) -> dict[tuple[str, str], _Cell]:
    """Every pair of groups that have tokens, all entries alike."""
    sides = [
        {name: side.of_group(name) for name in side.group_names} for side in (circuit.inputs, circuit.outputs)
    ]
    return {
        (source, target): _Cell(rows, None, columns)
        for source, rows in sides[0].items()
        for target, columns in sides[1].items()
        if len(rows) and len(columns)
    }


def _pair_cells(circuit: OVCircuit, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], _Cell]:
    """The pairs, by the groups of their tokens."""
    if not pairs or len(set(pairs)) < len(pairs):
        raise ModelError(
            f"pairs must name at least one (input, own output), each once, got {len(pairs)} pairs, "
            f"{len(set(pairs))} different ones"
        )
    rows = circuit.inputs.positions([x for x, _ in pairs])
    own = circuit.outputs.positions([y for _, y in pairs])
    source, target = np.array(circuit.inputs.group)[rows], np.array(circuit.outputs.group)[own]
    found = {}
    for a, b in sorted(set(zip(source.tolist(), target.tolist(), strict=True))):
        chosen = (source == a) & (target == b)
        names = circuit.inputs.group_names[a], circuit.outputs.group_names[b]
        found[names] = _Cell(rows[chosen], own[chosen], circuit.outputs.of_group(names[1]))
    return found


def _members(name: str, tokens: TokenSet) -> tuple[str, ...]:
    return tuple(tokens.labels[k] for k in tokens.of_group(name))


def _counted(name: str, tokens: TokenSet) -> str:
    size = len(tokens.of_group(name))
    return f"{name} ({size})" if size > 1 else name

"""How good a circuit is: faithfulness, completeness, minimality, beside random circuits of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from ocr_interp.ablation.where.edges import random_edges
from ocr_interp.checks import check_count, check_number
from ocr_interp.discovery.circuit import Circuit
from ocr_interp.discovery.contrast import Contrast
from ocr_interp.discovery.node_sets import edges_among, random_nodes
from ocr_interp.discovery.paths import largest_live
from ocr_interp.discovery.runner import CircuitRunner
from ocr_interp.errors import ConfigError, ModelError

SAME_KINDS, CONNECTED, NODES = "same kinds", "connected", "as many heads and MLPs"
"""Random circuits: as many edges of each kind (what writes, what reads) as the circuit has, wherever they
are; and the live part of randomly ranked edges, as large as it gets within the circuit's size. Beside a
circuit of nodes as many random heads and as many random MLPs, with all edges among them."""


@dataclass(frozen=True, eq=False)
class CircuitEvaluation:
    """A circuit measured by real ablation of all other edges; norms are computed anew.

    Faithfulness is (measure − that of no edge) / (that of all edges − that of no edge): 0 for no edge and 1
    for all, exactly; it can leave 0..1.

    Attributes:
        size, n_edges: edges of the circuit, and of the model.
        faithfulness: of the circuit.
        without: faithfulness of the model without the circuit's edges; of a circuit of nodes, without these
            nodes, with all edges among the others.
        falls: by how much the circuit's faithfulness falls without each of its parts.
        parts: their names: its edges, or of a circuit of nodes its heads and MLPs.
        n_nodes: heads and MLPs of a circuit of nodes, else None.
        n_outside: number of edges that `without` keeps.
        random: name of a control -> faithfulness of each random circuit.
        random_sizes: their numbers of edges.
        ablation: what an ablated edge carries.
        full, empty: mean measure of the whole model and of no edge.
    """

    size: int
    n_edges: int
    faithfulness: float
    without: float
    falls: Float[np.ndarray, " part"] = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)
    random: dict[str, Float[np.ndarray, " circuit"]] = field(repr=False)
    random_sizes: dict[str, tuple[int, ...]] = field(repr=False)
    ablation: str
    full: float
    empty: float
    n_nodes: int | None = None
    n_outside: int = 0

    @property
    def completeness(self) -> float:
        """1 − `without`: 1 if nothing outside of the circuit does the task."""
        return 1.0 - self.without

    def minimality(self, least: float = 0.01) -> float:
        """The share of its edges (or nodes) without which faithfulness falls by at least so much."""
        check_number("least", least, at_least=0.0)
        return float((self.falls >= least).mean())

    def table(self) -> pd.DataFrame:
        """One row for each circuit: the one that was found, the rest of the model, random ones."""
        rows = [("found", self.size, self.faithfulness, 1)]
        rows.append(("all but it", self.n_outside, self.without, 1))
        for name, values in self.random.items():
            rows.append(
                (f"random, {name}", round(np.mean(self.random_sizes[name])), values.mean(), len(values))
            )
        return pd.DataFrame(rows, columns=["circuit", "edges", "faithfulness", "circuits"])

    def summary(self) -> str:
        """Three lines in words."""
        of, among = "edges", ""
        if self.n_nodes is not None:
            of, among = "heads and MLPs", f"{self.n_nodes} heads and MLPs with "
        lines = [
            f"{among}{self.size} of {self.n_edges} edges: faithfulness {self.faithfulness:.3f}, completeness "
            f"{self.completeness:.3f}, {self.minimality():.0%} of its {of} needed",
            f"measure {self.full:.4g} with all edges, {self.empty:.4g} with none ({self.ablation})",
        ]
        for name, values in self.random.items():
            lines.append(f"random, {name}: mean {values.mean():.3f}, largest {values.max():.3f}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.table().to_html(index=False)


def evaluate_circuit(
    model: Any,
    circuit: Circuit,
    contrast: Contrast,
    *,
    ablation: str = "donor",
    random_circuits: int = 20,
    seed: int = 0,
) -> CircuitEvaluation:
    """Measures a circuit, the model without it, it without each edge (or node), and random ones beside it.

    Args:
        model: the circuit's model.
        circuit: which edges are kept.
        contrast: prompts, donors and answers; others than those it was found on tell how it generalises.
        ablation: what all other edges carry, an entry of `runner.ABLATIONS`.
        random_circuits: how many of each kind of control.
        seed: of the controls, and of "resample".

    Raises:
        ModelError: a circuit of a model with other nodes.
        ConfigError: an empty circuit, or donors that do not change the measure.
    """
    check_count("random_circuits", random_circuits, 1)
    runner = CircuitRunner(model, contrast, ablation, seed)
    nodes = runner.stream.nodes
    if nodes != circuit.nodes:
        raise ModelError(f"the circuit must be of this model, with {nodes.n_edges} edges, got {circuit!r}")
    if not circuit.mask.any():
        raise ConfigError("a circuit must have at least one edge, got none: find one of a larger size")
    mask = _measured_mask(circuit, runner.at_query)
    outside = nodes.allowed & ~mask
    rng = np.random.default_rng(seed)
    if circuit.of == "nodes":
        kept = circuit.kept
        parts = tuple(np.array(nodes.writers)[kept].tolist())
        smaller = [edges_among(nodes, kept[kept != one], runner.at_query) for one in kept]
        others = np.setdiff1d(np.arange(1, len(nodes.writers)), kept)
        outside = edges_among(nodes, others, runner.at_query)
    else:
        parts = circuit.edges
        smaller = []
        for writer, reader in np.argwhere(mask.T)[:, ::-1]:
            smaller.append(mask.copy())
            smaller[-1][writer, reader] = False
    drawn = random_like(circuit, runner.at_query, random_circuits, rng)
    every = [mask, outside, *smaller, *(each for masks in drawn.values() for each in masks)]
    found = runner.faithfulness(every)
    start = 2 + len(smaller)
    random = {}
    for name in drawn:
        random[name] = found[start : start + random_circuits]
        start += random_circuits
    return CircuitEvaluation(
        size=int(mask.sum()),
        n_edges=nodes.n_edges,
        faithfulness=float(found[0]),
        without=float(found[1]),
        falls=found[0] - found[2 : 2 + len(smaller)],
        parts=parts,
        random=random,
        random_sizes={name: tuple(int(each.sum()) for each in masks) for name, masks in drawn.items()},
        ablation=ablation,
        full=float(runner.full.double().mean()),
        empty=float(runner.empty.double().mean()),
        n_nodes=len(circuit.kept) if circuit.of == "nodes" else None,
        n_outside=int(outside.sum()),
    )


def random_like(
    circuit: Circuit, at_query: bool, count: int, rng: np.random.Generator
) -> dict[str, list[Bool[np.ndarray, "writer reader"]]]:
    """Random circuits beside one, by kind of control.

    Args:
        circuit: of edges, or of nodes.
        at_query: as for `paths.live`.
        count: how many of each kind.
        rng: draws them.
    """
    nodes, mask = circuit.nodes, circuit.mask
    if circuit.of == "nodes":
        sets = [random_nodes(nodes, circuit.kept, rng) for _ in range(count)]
        return {NODES: [edges_among(nodes, each, at_query) for each in sets]}
    size = int(mask.sum())
    return {
        SAME_KINDS: [random_edges(nodes, mask, rng) for _ in range(count)],
        CONNECTED: [largest_live(nodes, rng.random(mask.shape), size, at_query) for _ in range(count)],
    }


def faithfulness_of(
    model: Any,
    circuits: Sequence[Circuit],
    contrast: Contrast,
    *,
    ablation: str = "donor",
    seed: int = 0,
) -> Float[np.ndarray, " circuit"]:
    """Faithfulness of several circuits of one model, many in a pass.

    Args:
        model, contrast, ablation, seed: as for `evaluate_circuit`.
        circuits: of this model.

    Raises:
        ModelError: a circuit of a model with other nodes.
    """
    runner = CircuitRunner(model, contrast, ablation, seed)
    for circuit in circuits:
        if circuit.nodes != runner.stream.nodes:
            raise ModelError(f"circuits must be of this model, got {circuit!r}")
    return runner.faithfulness([_measured_mask(circuit, runner.at_query) for circuit in circuits])


def _measured_mask(circuit: Circuit, at_query: bool) -> Bool[np.ndarray, "writer reader"]:
    """The edges that are kept; of nodes those that can carry what these prompts and donors differ in.

    Which edges among nodes are alive depends on where prompts and donors differ, and may be others than where
    the nodes were found.
    """
    return circuit.mask if circuit.of == "edges" else edges_among(circuit.nodes, circuit.kept, at_query)

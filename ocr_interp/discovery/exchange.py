"""Circuits as files of other libraries: EAP-IG's JSON, and auto-circuit's tables of edges.

EAP-IG's Graph.to_json writes {"cfg", "nodes", "edges"}, and its Graph.from_json reads it; edges are named as
here. It has three inputs for every query head; where heads share keys and values, the edges into a group are
written for each of its heads, with an equal part of the score. auto-circuit has no file of its own: its prune
scores are tables by module, {"blocks.1.hook_q_input": [head, writer], ...}, written here as nested lists. A
circuit of nodes is written as its edges, and comes back as a circuit of edges.

Both formats follow the libraries' sources (EAP-IG src/eap/graph.py, auto-circuit utils/graph_utils.py and
model_utils/transformer_lens_utils.py); neither library was run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ocr_interp.discovery.circuit import Circuit
from ocr_interp.errors import ConfigError, OcrInterpError, shown, unknown_name
from ocr_interp.storage.reading import parse_json
from ocr_interp.stream.nodes import ARROW, LOGITS, StreamNodes

_SHARED = re.compile(r"a(\d+)\.kv(\d+)<([kv])>")
_CFG = ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")


def to_eap_ig(circuit: Circuit, d_model: int = 0) -> str:
    """A circuit as the JSON text of EAP-IG's Graph.to_json.

    Args:
        circuit: its edges are `in_graph`; all edges of the model are written with their scores.
        d_model: width of the model, which EAP-IG keeps for circuits of neurons.
    """
    nodes, inside = circuit.nodes, set(circuit.writers)
    cfg = dict(zip(_CFG, (nodes.n_layers, nodes.n_heads, nodes.parallel, d_model), strict=True))
    named = {name: {"in_graph": name in inside} for name in nodes.writers}
    edges: dict[str, dict[str, Any]] = {}
    group = nodes.n_heads // nodes.n_kv_heads
    for reader, target in enumerate(nodes.readers):
        match = _SHARED.fullmatch(target)
        names = [target]
        if match is not None:
            heads = range(int(match[2]) * group, (int(match[2]) + 1) * group)
            names = [f"a{match[1]}.h{head}<{match[3]}>" for head in heads]
        for writer in np.flatnonzero(nodes.allowed[:, reader]).tolist():
            score = float(circuit.scores[writer, reader]) / len(names)
            entry = {"score": score, "in_graph": bool(circuit.mask[writer, reader])}
            edges |= {f"{nodes.writers[writer]}{ARROW}{name}": dict(entry) for name in names}
    content = {"cfg": cfg, "nodes": named | {LOGITS: {"in_graph": True}}, "edges": edges}
    return json.dumps(content, allow_nan=False) + "\n"


def from_eap_ig(text: str, nodes: StreamNodes | None = None) -> Circuit:
    """A circuit from the JSON text of EAP-IG's Graph.to_json.

    Args:
        text: the JSON.
        nodes: of the model (`circuit.nodes`), where heads share keys and values or some layer has no MLP;
            None takes those that the file names, with an MLP in each layer that has an edge from or to it.

    Raises:
        ConfigError: text that is not such JSON, edges that a transformer does not have, circuits of neurons,
            or heads of a group of which some read what others do not.
        UnknownNameError: a node that the model does not have.
    """
    try:
        content: Any = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"a circuit must be EAP-IG's JSON, got text that is none: {error}") from None
    if not isinstance(content, dict) or not {"cfg", "nodes", "edges"} <= content.keys():
        raise ConfigError("a circuit must be EAP-IG's JSON with cfg, nodes and edges, got other content")
    if not all(isinstance(content[key], dict) for key in ("cfg", "nodes", "edges")):
        raise ConfigError("cfg, nodes and edges must be JSON objects, got others")
    if any("neurons" in node for node in content["nodes"].values() if isinstance(node, Mapping)):
        raise ConfigError("a circuit must be of whole nodes, got one of neurons: export edges alone")
    nodes = _nodes(content) if nodes is None else nodes
    group = nodes.n_heads // nodes.n_kv_heads
    mask, scores = np.zeros(nodes.allowed.shape, dtype=bool), np.zeros(nodes.allowed.shape)
    seen: dict[tuple[int, int], bool] = {}
    for name, entry in content["edges"].items():
        writer, reader = _place(nodes, name, group)
        value, inside = _entry(name, entry)
        if seen.setdefault((writer, reader), inside) != inside:
            raise ConfigError(
                f"heads that share keys and values must read them from the same nodes, got {shown(name)} "
                f"{'in' if inside else 'outside of'} the circuit and another head's not"
            )
        scores[writer, reader] += value
        mask[writer, reader] = inside
    return Circuit(nodes, mask, scores, "read from EAP-IG's JSON")


def _nodes(content: dict[str, Any]) -> StreamNodes:
    cfg = content["cfg"]
    counts = [cfg.get(name) for name in ("n_layers", "n_heads")]
    if any(type(count) is not int or not 1 <= count <= 10_000 for count in counts):
        raise ConfigError(f"cfg must have n_layers and n_heads of at least 1, got {shown(cfg)}")
    ends = {end for edge in content["edges"] for end in str(edge).split(ARROW)}
    mlps = tuple(f"m{layer}" in ends for layer in range(counts[0]))
    return StreamNodes(counts[0], counts[1], counts[1], mlps, bool(cfg.get("parallel_attn_mlp")))


def _place(nodes: StreamNodes, name: str, group: int) -> tuple[int, int]:
    match = re.fullmatch(r"(.+->)a(\d+)\.h(\d+)<([kv])>", name)
    asked = name
    if match is not None and group > 1:
        asked = f"{match[1]}a{match[2]}.kv{int(match[3]) // group}<{match[4]}>"
    try:
        places = np.argwhere(nodes.mask([asked]))
    except OcrInterpError as error:
        if ARROW not in name:
            raise unknown_name("edge", name, nodes.edges) from None
        raise ConfigError(f"edge {shown(name)} of the file is none of the model's: {error}") from None
    if len(places) != 1:
        raise ConfigError(f"an edge into a head must name its input, got {shown(name)}: add <q>, <k> or <v>")
    return int(places[0][0]), int(places[0][1])


def _entry(name: str, entry: Any) -> tuple[float, bool]:
    score = entry.get("score", 0.0) if isinstance(entry, Mapping) else None
    inside = entry.get("in_graph") if isinstance(entry, Mapping) else None
    if not isinstance(score, int | float) or isinstance(score, bool) or not np.isfinite(score):
        raise ConfigError(f"score of edge {shown(name)} must be a finite number, got {shown(score)}")
    if not isinstance(inside, bool):
        raise ConfigError(f"in_graph of edge {shown(name)} must be true or false, got {shown(inside)}")
    return float(score), inside


def to_auto_circuit(circuit: Circuit) -> str:
    """The scores of a circuit's edges as auto-circuit's prune scores, 0 outside of it, as JSON text.

    `{name: torch.tensor(rows) for name, rows in json.loads(text).items()}` is its PruneScores of a factorized
    model with separate queries, keys and values: by module, [head, writer] or [writer], for the writers
    before.

    Raises:
        ConfigError: heads that share keys and values, for which auto-circuit has no modules here.
    """
    nodes = circuit.nodes
    if nodes.n_kv_heads < nodes.n_heads:
        raise ConfigError(
            f"auto-circuit's tables need a key and a value input for every head, got {nodes.n_kv_heads} for "
            f"{nodes.n_heads} heads: export with to_eap_ig"
        )
    values, content = np.where(circuit.mask, circuit.scores, 0.0), {}
    for layer in range(nodes.n_layers):
        before = nodes.written_before(layer)
        for part in ("q", "k", "v"):
            rows = values[:before, nodes.readers_of(layer, part)].T
            content[f"blocks.{layer}.hook_{part}_input"] = rows.tolist()
        if nodes.mlps[layer]:
            before, place = nodes.written_before(layer, mlp=True), nodes.readers_of(layer, "mlp")
            content[f"blocks.{layer}.hook_mlp_in"] = values[:before, place.start].tolist()
    content[f"blocks.{nodes.n_layers - 1}.hook_resid_post"] = values[:, -1].tolist()
    return json.dumps(content, allow_nan=False) + "\n"

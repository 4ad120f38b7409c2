"""Diagrams of circuits: the mechanism of both models, single prompts, singular blocks, and a head of a Llama.

Every diagram is a CircuitGraph whose contributions sum to logits; the .json beside a picture has its graphs.
The Llama is tiny and has random weights: it shows that the tools work with any model, and is not a result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure as Picture

from analyses.circuits.predicted import predicted_circuit
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.paper.runs import PAPER, load_all, named
from analyses.theory.limit_runs import OV_KINDS, OvKind
from ocr_interp import OVCircuit, Run
from ocr_interp.graphs import CircuitGraph, circuit_graph, head_graph, mechanism_graph, prompt_graph
from ocr_interp.viz import draw_circuit, plot_circuit

PROMPT = [*["noise0", "noise1", "noise2", "noise3"] * 3, "noise4", "s1", "r2", "EOS"]  # s1 is held out
BLOCK_TOLERANCE: dict[OvKind, float] = {"non_factorized": 0.05, "factorized": 0.2}
"""AdamW leaves the factorized model's blocks spread out, the other's nearly degenerate (see ov_breakdown)."""
LLAMA_WORDS = [
    "<unk>",
    "<eos>",
    "Paris",
    "Rome",
    "France",
    "Italy",
    "is",
    "in",
    "the",
    "capital",
    "of",
    "city",
]


TITLE_HEIGHT, NOTE_HEIGHT = 0.5, 0.5
"""Inches above the graphs, and of the note below one, which is left out."""


def numbers_of(graphs: Sequence[CircuitGraph]) -> dict[str, Any]:
    """The graphs as the JSON of a picture holds them."""
    return {"graphs": [json.loads(graph.to_json()) for graph in graphs]}


def graphs_of(numbers: dict[str, Any]) -> list[CircuitGraph]:
    """The graphs that the JSON of a picture holds."""
    return [CircuitGraph.from_json(json.dumps(graph)) for graph in numbers["graphs"]]


def draw_mechanism(numbers: dict[str, Any]) -> Picture:
    """The graphs below one another, on one scale."""
    graphs = [merged(graph) for graph in graphs_of(numbers)]
    return draw_below(graphs, [4.5] * len(graphs))


def draw_prompts(numbers: dict[str, Any]) -> Picture:
    """The same for single prompts, as large as their boxes."""
    return draw_below(graphs_of(numbers))


def draw_implications(numbers: dict[str, Any]) -> Picture:
    """What writes the untold implications alone; the JSON has the facts too."""
    return draw_below([untold_part(graph) for graph in graphs_of(numbers)])


def draw_first(numbers: dict[str, Any]) -> Picture:
    """The first graph alone; the JSON has the second too."""
    return draw_below(graphs_of(numbers)[:1])


def draw_below(graphs: Sequence[CircuitGraph], heights: Sequence[float] = ()) -> Picture:
    """Graphs below one another, on one scale, without notes.

    Args:
        graphs: the first stands above.
        heights: of the graphs, in inches; left out, those at which text has its full size.
    """
    largest = max(abs(edge.contribution) for graph in graphs for edge in graph.edges)
    heights = heights or [draw_circuit(graph).get_figheight() - NOTE_HEIGHT for graph in graphs]
    whole = sum(heights) + TITLE_HEIGHT
    fig = plt.figure(figsize=(WIDTH, whole))
    bottom = whole - TITLE_HEIGHT
    for graph, height in zip(graphs, heights, strict=True):
        bottom -= height
        ax = fig.add_axes((0.0, bottom / whole, 1.0, height / whole))
        plot_circuit(ax, graph, largest=largest, note=False)
    return fig


def untold_part(graph: CircuitGraph) -> CircuitGraph:
    """The untold edges of a graph with their nodes and answers."""
    edges = tuple(edge for edge in graph.edges if edge.kind == "untold")
    ends = {end for edge in edges for end in (edge.source, edge.target)}
    nodes = tuple(node for node in graph.nodes if node.name in ends)
    return replace(
        graph, nodes=nodes, edges=edges, effects=tuple(each for each in graph.effects if each.node in ends)
    )


def merged(graph: CircuitGraph) -> CircuitGraph:
    """A mechanism with one node for tokens and for the attention to them, which pass on the same."""
    reads = {edge.target: edge.source for edge in graph.edges if graph.node(edge.target).kind == "attention"}
    nodes = {node.name: node for node in graph.nodes if node.name not in reads}
    for attention, token in reads.items():
        attends = graph.node(attention).label.replace("\n", " ")
        nodes[token] = replace(nodes[token], label=f"{nodes[token].label}\n{attends}")
    edges = [replace(e, source=reads.get(e.source, e.source)) for e in graph.edges if e.target not in reads]
    return replace(graph, nodes=tuple(nodes.values()), edges=tuple(edges))


MECHANISM = Drawing(
    "Only the factorized model writes the implication of subjects that were told their fact alone: the edge "
    "that nobody trained",
    draw_mechanism,
    digits=None,
)
PROMPTS = Drawing(
    "Only in the factorized model a held-out subject writes its own implication", draw_prompts, digits=None
)
TRAINED = Drawing(
    "In the trained factorized model two blocks add up to the untold implication; in the other one they "
    "cancel",
    draw_implications,
    digits=None,
)
SOLUTIONS = Drawing(
    "In the max-margin solution with factors one block writes the untold implication; without factors two "
    "blocks cancel in it",
    draw_implications,
    digits=None,
)
LLAMA = Drawing(
    "The same tools on a head of a tiny Llama with random weights, which is no result",
    draw_first,
    digits=None,
)
DRAWINGS = {
    "circuit_mechanism": MECHANISM,
    "circuit_prompt": PROMPTS,
    "circuit_blocks_trained": TRAINED,
    "circuit_blocks_predicted": SOLUTIONS,
    "circuit_llama_head": LLAMA,
}


def by_block(circuit: OVCircuit, tolerance: float, title: str) -> CircuitGraph:
    """The contributions of held-out subjects to their own answers, by singular block."""
    held_out = [s for s in range(PAPER.n_subjects) if not PAPER.subject_trained[s]]
    pairs = [(f"s{s}", f"{kind}{PAPER.subject_fact[s]}") for s in held_out for kind in "bc"]
    untold = [("held-out subjects", "implications")]
    most = 3 if tolerance > 0.1 else 2
    graph = circuit_graph(
        circuit, pairs=pairs, untold=untold, tolerance=tolerance, max_blocks=most, title=title
    )
    return graph.prune(0.001)


def tiny_llama():
    """A TransformerBridge of a two-layer Llama with random weights and a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(LLAMA_WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    )
    config = LlamaConfig(
        vocab_size=len(LLAMA_WORDS),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double().eval()
    return TransformerBridge.boot_transformers(
        "tiny random Llama", hf_model=model, tokenizer=tokenizer, device="cpu", dtype=torch.float64
    )


def of_a_llama() -> list[CircuitGraph]:
    """One head in one prompt, and its OV circuit between groups of tokens, own answers given."""
    model = tiny_llama()
    prompt = ["the", "capital", "of", "France", "is"]
    in_prompt = head_graph(model, prompt, "Paris", "Rome", layer=1, head=4)
    circuit = OVCircuit.from_model(
        model,
        layer=1,
        head=4,
        inputs={"countries": ["France", "Italy"]},
        outputs={"capitals": ["Paris", "Rome"]},
    )
    own = [("France", "Paris"), ("Italy", "Rome")]
    whole = circuit_graph(circuit, pairs=own, title="L1H4: countries to their capitals")
    return [replace(in_prompt, title="L1H4 after “the capital of France is”"), whole]


def make(runs: Path, figures: Path) -> None:
    trained: dict[OvKind, Run] = {ov: load_all(runs, ov)[0] for ov in reversed(OV_KINDS)}
    mechanisms = [mechanism_graph(run).prune(0.05) for run in trained.values()]
    prompts, blocks, solutions = [], [], []
    for ov, run in trained.items():
        name, tolerance = ov.replace("_", "-"), BLOCK_TOLERANCE[ov]
        prompt = prompt_graph(run, PROMPT, "c0", "c1", tolerance=tolerance).prune(0.01)
        prompts.append(replace(prompt, title=f"{name}: s1 (held out), r2"))
        circuit = OVCircuit.from_run(run).effective.subjects_and_relations
        blocks.append(by_block(circuit, tolerance, f"{name}, trained"))
        solutions.append(by_block(predicted_circuit(circuit, ov), 1e-6, f"{name}, max-margin solution"))
    graphs = (mechanisms, prompts, blocks, solutions, of_a_llama())
    for (name, drawing), shown in zip(DRAWINGS.items(), graphs, strict=True):
        drawing.write(figures / name, numbers_of(shown))


FIGURE = Figure(
    pictures=tuple(DRAWINGS),
    draw=make,
    cost="slow",
    experiments=named(*OV_KINDS),
    drawings=DRAWINGS,
)


if __name__ == "__main__":
    main()

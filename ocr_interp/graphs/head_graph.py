"""The graph of one attention head of any model in one prompt: tokens, attention, singular blocks, answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ocr_interp.checks import check_count
from ocr_interp.circuits.attribution.of_model import SeenPrompt, attribute_model, encoded
from ocr_interp.circuits.weights.spectra import head_spectrum
from ocr_interp.graphs.building import through_blocks
from ocr_interp.graphs.circuit_graph import named_blocks
from ocr_interp.graphs.graph import CircuitGraph, Effect, Node
from ocr_interp.hooked.adapted.copies import as_hooked
from ocr_interp.hooked.probes import probe_head
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel
from ocr_interp.hooked.tokens.ids import Token, TokenList
from ocr_interp.hooked.tokens.labels import labels_of, output_labels_of
from ocr_interp.linalg.spectrum import Spectrum


def head_graph(
    model: HookedModel | AdaptedModel,
    prompt: TokenList | str,
    answer: Token,
    against: Token | None = None,
    *,
    layer: int,
    head: int,
    tolerance: float = 0.05,
    max_blocks: int = 3,
    labels: Sequence[str] | None = None,
    output_labels: Sequence[str] | None = None,
) -> CircuitGraph:
    """Tokens of a prompt, what the last position attends to, singular blocks of W_V W_O, and the answer.

    What the head writes from each position is projected onto the output side of every degenerate block of
    its OV circuit, d_model by d_model with the gain of ln1 folded into W_V; the parts sum exactly to the
    head's direct contribution as `attribute_model` gives it.

    Args:
        model: any HookedTransformer, TransformerBridge or PeftModel.
        prompt: token ids or single-token strings, or a text for the tokenizer; nothing is prepended.
        answer, against: the answer, and the one that is subtracted.
        layer, head: which head.
        tolerance: of the degenerate blocks, see `OVCircuit.spectrum`.
        max_blocks: number of blocks with nodes of their own, those that contribute most; the rest share a
            node.
        labels: a label for every token id; without them the tokenizer's tokens.
        output_labels: a label for every logit, where the outputs are another vocabulary.

    Raises:
        ModelError, UnknownNameError, AttributionError: as `attribute_model`.
    """
    check_count("max_blocks", max_blocks, 1)
    model = as_hooked(model)
    named = {"labels": labels, "output_labels": output_labels}
    found = attribute_model(model, prompt, answer, against, layer=layer, head=head, **named)
    probe_head(model, layer, head).require(("values",), "a graph of singular blocks")
    spectrum = head_spectrum(model, layer, head, tolerance)
    asked = [answer] if against is None else [answer, against]
    names = labels_of(model, labels), output_labels_of(model, labels, output_labels)
    seen = SeenPrompt(model, *encoded(model, prompt, asked, *names), layer)
    parts = _by_block(seen, head, spectrum)
    # What no block spans (a bias of the values that W_V never writes) stands with the small blocks.
    outside = found.by_position - parts.sum(1)
    names, table = named_blocks(spectrum, parts, max_blocks)
    if len(names) > max_blocks:
        table[:, -1] += outside
    elif np.abs(outside).max() > 1e-12 * max(1.0, np.abs(found.contributions).sum()):
        table, names = np.hstack([table, outside[:, None]]), [*names, "outside\nall blocks"]
    attention = seen.cache["pattern"][head, -1].cpu().numpy()
    shown = found.answer if found.against is None else f"{found.answer} − {found.against}"
    nodes, edges = through_blocks(
        [Node(f"token {t}", "token", label, (label,)) for t, label in enumerate(found.tokens)],
        [float(a) for a in attention],
        [name.replace(": ", "\n") for name in names],
        table,
        Node("answer", "answer", shown, (found.answer,)),
    )
    return CircuitGraph(
        title=f"L{layer}H{head} of {found.model}: {shown}",
        nodes=nodes,
        edges=edges,
        effects=(Effect("answer", float(table.sum())),),
        statement=f"{found.statement}; blocks of W_V W_O",
        source=f"{found.model}, layer {layer}, head {head}, weights {found.fingerprint}",
        fingerprint=found.fingerprint,
    )


def _by_block(seen: SeenPrompt, head: int, spectrum: Spectrum) -> Float[np.ndarray, "position block"]:
    written = seen.written_by(head)
    columns = []
    for block in spectrum.blocks:
        basis = written.new_tensor(block.output_basis)
        columns.append(seen.through(written @ basis @ basis.mT).cpu().numpy().astype(np.float64))
    return np.stack(columns, axis=1)

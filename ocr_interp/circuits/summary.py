"""A circuit as text, every number beside that of random weights of the same size."""

from __future__ import annotations

from ocr_interp.circuits.baseline import random_circuit
from ocr_interp.circuits.matrix import OVMatrix


def summarize(circuit: OVMatrix, seed: int = 0) -> str:
    """Provenance, size, norms and shares of energy; see `OVCircuit.summary`."""
    whole, circuit = circuit, circuit.seen
    chance = random_circuit(circuit, seed)
    energy, by_chance = circuit.energy, chance.energy
    lines = [
        circuit.provenance.summary(),
        f"{len(circuit.inputs)} inputs x {len(circuit.outputs)} outputs, {circuit.norms.summary()}",
        f"random weights of the same shapes and Frobenius norm (seed {seed}): {chance.norms.summary()}",
        "share of energy (random weights)".ljust(34) + "".join(f"{c:>20}" for c in energy.columns),
    ]
    rows = zip(energy.rows, energy.shares, by_chance.shares, energy.counts, strict=True)
    for row, shares, random_shares, counts in rows:
        if not counts.any():  # noise of a run without noise
            continue
        pairs = zip(shares, random_shares, strict=True)
        cells = [f"{100 * share:.2f}% ({100 * random:.2f}%)" for share, random in pairs]
        lines.append(f"{row:34}" + "".join(f"{cell:>20}" for cell in cells))
    blocks = circuit.spectrum(tolerance=0.05).blocks[:6]
    shown = ", ".join(f"{block.value:.4g} x {block.multiplicity}" for block in blocks)
    lines.append(f"singular values in blocks of 5%, largest {len(blocks)}: {shown}")
    if whole.scores is not None and whole.task is not None and len(whole.inputs) == whole.task.n_inputs:
        seen = whole.attention_by_kind
        sizes = zip(seen.kinds, seen.mean_size, seen.share, seen.tokens_in_prompt, strict=True)
        said = ", ".join(
            f"{kind} {size:.3g} ({100 * share:.0f}%)" for kind, size, share, tokens in sizes if tokens
        )
        lines.append(f"EOS attends to (mean |a| of a token, share of a prompt): {said}")
    lines += [f"folded: {text}" for text in circuit.provenance.folded]
    lines += [f"note: {text}" for text in circuit.provenance.flags]
    lines += [f"checked: {text}" for text in circuit.provenance.checks]
    return "\n".join(lines)

"""Subspaces of the answers' logits whose removal destroys out-of-context implications but no told answer.

An orthogonal projection can also damp a direction: removing cosθ u + sinθ v, with u in the head's output and
v outside it (or without effect on logit differences), removes the share cos²θ of u. So rank k is enough to
scale k directions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from analyses.ablations.tables import METRICS, kept_and_taken, mean_of, unit_of
from analyses.paper.runs import PAPER
from ocr_interp import OVCircuit
from ocr_interp.ablation import (
    Intervention,
    Subspace,
    ablated,
    output_subspace,
    run_ablation_study,
    task_examples,
)
from ocr_interp.ablation.controls import EQUAL_NORM
from ocr_interp.task import SPLITS
from ocr_interp.training.run import Snapshot

N, ANSWERS = PAPER.n_pairs, PAPER.n_answers
SIZES = {"relation block (1)": 1, "large block (19)": N - 1, "small block (19)": N - 1}


def blocks_of(W: np.ndarray) -> dict[str, np.ndarray]:
    """Output bases [answer, direction] of relation, large and small block.

    The relation block is the singular direction with most of r1 − r2's image; the large block is the 19
    next ones, the small block the last 19 of the rest (a trained model has one direction between them).
    """
    V = np.linalg.svd(W, full_matrices=False)[2].T
    told_apart = W[-2] - W[-1]
    relation = int(np.abs(told_apart @ V).argmax())
    others = np.delete(np.arange(min(W.shape)), relation)[: min(W.shape) - 1]
    last = others[N - 1 :]
    pair = V.reshape(2, N, -1)
    # The direction in between moves all facts or all implications together: it does not depend on the pair.
    patterned = last[np.argsort(np.abs(pair[:, :, last].sum(1)).sum(0), kind="stable")[: N - 1]]
    return dict(zip(SIZES, (V[:, [relation]], V[:, others[: N - 1]], V[:, patterned]), strict=True))


def blocks_against(W: np.ndarray, circuit: OVCircuit) -> dict[str, dict[str, float]]:
    """Mean squared cosine of a model's blocks with the predicted ones, and its singular values in them."""
    ours, theirs, found = blocks_of(circuit.W), blocks_of(W), {}
    for name, basis in ours.items():
        values = np.linalg.norm(circuit.W @ basis, axis=0)
        overlap = np.linalg.norm(theirs[name].T @ basis) ** 2 / basis.shape[1]
        found[name] = {"overlap": overlap, "largest": values.max(), "smallest": values.min()}
    return found


def constructed(W: np.ndarray) -> dict[str, np.ndarray]:
    """Two subspaces constructed from the closed form; rows beyond the answers are unread directions.

    - rank 1: facts minus implications, mixed with all answers alike, which no margin sees. The relation's
      contribution is scaled by t; a held-out implication loses to its own fact if t < (1 − 1/n)(1 − β), and
      all that was told stays if t > 0. Midway is t = half of that.
    - rank n − 1: (b_i cosφ + c_i sinφ) summed over pairs with patterns that sum to 0, damped by κ; (φ, κ)
      with the largest distance of told coefficients above and held-out implications below zero.
    """
    beta = float(np.trace(W[1 : 4 * N : 4, N:]) / N) / (1 - 1 / N)
    t = (1 - 1 / N) * (1 - beta) / 2
    sign = np.repeat([1.0, -1.0], N) / np.sqrt(2 * N)
    rank_one = np.sqrt(1 - t) * sign + np.sqrt(t) * np.abs(sign)
    phi, kappa = max(
        ((p, k) for p in np.linspace(0, np.pi / 2, 181) for k in np.linspace(0, 1, 201)),
        key=lambda pair: _distance(*pair, beta),
    )
    patterns = np.linalg.svd(np.eye(N) - 1 / N)[0][:, : N - 1]
    seen = np.concatenate([np.cos(phi) * patterns, np.sin(phi) * patterns])
    damped = np.concatenate([np.sqrt(kappa) * seen, np.sqrt(1 - kappa) * np.eye(N - 1)])
    return {
        "rank-1 subspace: facts minus implications, damped": rank_one[:, None],
        f"rank-{N - 1} subspace: damped pair patterns": damped,
    }


def _distance(phi: float, kappa: float, beta: float) -> float:
    """The smaller of: smallest told coefficient, and minus the coefficient of held-out implications."""
    u = np.array([np.cos(phi), np.sin(phi)])
    told, held_out = (row - kappa * (row @ u) * u for row in (np.ones(2), np.array([1, beta])))
    return float(min(told[0], told[1], held_out[0], -held_out[1]))


def as_spec(circuit: OVCircuit, basis: np.ndarray) -> Intervention:
    """The subspace as an intervention; rows beyond the answers are residual dimensions unread by W_U."""
    if len(basis) == len(circuit.outputs):
        return output_subspace(circuit, basis)
    plain = output_subspace(circuit, np.eye(len(circuit.outputs)))
    what = plain.what
    assert isinstance(what, Subspace)
    assert what.readout is not None
    spare = torch.eye(what.readout.shape[0], len(basis) - len(circuit.outputs), dtype=torch.float64)
    wider = torch.cat([what.readout, spare], dim=1)
    return replace(what, basis=torch.as_tensor(basis), readout=wider).at(plain.where)


# --- search ---------------------------------------------------------------------------------------


def found_in(run: Snapshot, rank: int, against: str = "all answers") -> tuple[np.ndarray, dict[str, float]]:
    """The best subspace of output logits for a model's own circuit, with the margins of the search.

    The margins include the rest of a prompt (EOS, and noise at its mean).
    """
    circuit = OVCircuit.from_run(run).effective
    named = circuit.subjects_and_relations.W
    rest = circuit.W[[PAPER.eos_token]].sum(0)
    if run.config.train.data != "noise_free":
        rest = rest + (PAPER.seq_len - 3) * circuit.W[list(PAPER.noise_tokens)].mean(0)
    basis, found = _search(named, "outputs", against, rank, rest=rest)
    return basis, found


SEARCHED = {
    "rank 1": (1, "all answers"),
    "rank 2": (2, "all answers"),
    "rank 2, implications alone": (2, "implications"),
}
"""Ranks, and the answers that a held-out implication should lose to."""


EXPLAINED = ("margin_in_set", "winners", "common_share")
"""What `own_subspaces` says of how a subspace takes them."""


def own_subspaces(run: Snapshot) -> dict[str, dict[str, Any]]:
    """Subspaces found for a model's own circuit, used as ablations of the model, beside random ones.

    `winners` is how many different answers the model then gives to the held-out implications, and
    `common_share` how much of the change of their logits (sum of squares) is the same in every prompt.
    """
    circuit = OVCircuit.from_run(run).effective.subjects_and_relations
    found = {name: found_in(run, *how) for name, how in SEARCHED.items()}
    specs = {name: output_subspace(circuit, basis) for name, (basis, _) in found.items()}
    table = run_ablation_study(run, specs, METRICS, seeds=(0, 1, 2)).table
    table[list(METRICS[:3])] /= unit_of(table)
    plain, random = (table.loc[table["control"] == name].copy() for name in ("intervention", EQUAL_NORM))
    result = {}
    for name, (_, searched) in found.items():
        kept, taken = kept_and_taken(plain, name)
        random_kept, random_taken = kept_and_taken(random, name)
        deduced = [mean_of(plain, spec, SPLITS[3], "logit_difference") for spec in ("none", name)]
        result[name] = {
            "kept": kept,
            "held_out_implications": taken,
            "random_kept": random_kept,
            "random_held_out_implications": random_taken,
            "held_out_logit_difference_before_and_after": deduced,
            "margin_in_set": mean_of(plain, name, SPLITS[3], "margin"),
            **_what_wins(run, specs[name]),
            "searched": searched,
        }
    return result


def _what_wins(run: Snapshot, spec: Intervention) -> dict[str, float]:
    examples = task_examples(PAPER, run.config.train.data != "noise_free")
    tokens = examples.tokens[torch.tensor([split == SPLITS[3] for split in examples.split])]
    with torch.no_grad():
        before = run.model(tokens)[:, -1, PAPER.n_inputs :].double()
        with ablated(run.model, spec):
            after = run.model(tokens)[:, -1, PAPER.n_inputs :].double()
    change = after - before
    common = float(change.mean(0).square().sum() * len(change) / change.square().sum())
    return {"winners": len(set(after.argmax(1).tolist())), "common_share": common}


def search_all(W: np.ndarray, ranks: tuple[int, ...] = (1, 2, 3, 4, 8)) -> list[dict[str, object]]:
    """Optimised projectors on either side of the closed form, against all answers and inside the set."""
    return [
        {"side": side, "against": against, "rank": rank, **_search(W, side, against, rank)[1]}
        for against in ("all answers", "implications")
        for side in ("outputs", "inputs")
        for rank in ranks
    ]


def _search(
    W: np.ndarray, side: str, against: str, rank: int, steps: int = 300, rest: np.ndarray | float = 0.0
) -> tuple[np.ndarray, dict[str, float]]:
    """Maximises told margins above zero and held-out margins below zero; the best of three starts.

    Returns the basis and the margins. `rest` is what every prompt adds to the logits (outputs only).
    """
    triples, best, basis = PAPER.triples, {"distance": -np.inf}, np.zeros((0, 0))
    X = torch.zeros(len(triples), len(W), dtype=torch.float64)
    rows = torch.arange(len(triples))
    X[rows, torch.tensor(triples.subject)] = 1
    X[rows, PAPER.n_subjects + torch.tensor(triples.relation)] = 1
    matrix, target = torch.tensor(W), torch.tensor(triples.answer)
    same = torch.as_tensor(rest, dtype=torch.float64).expand(W.shape[1])
    unit = float(_margins(X @ matrix + same, target).amin(1)[torch.tensor(triples.split != 3)].min())
    matrix, same = matrix / unit, same / unit
    held_out = torch.tensor(triples.split == SPLITS.index("held_out_implication"))
    is_other_set = (torch.arange(ANSWERS) < N)[None] != (target < N)[:, None]
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        size = W.shape[1] if side == "outputs" else W.shape[0]
        A = torch.randn(size, rank, generator=generator, dtype=torch.float64).requires_grad_()
        optimizer = torch.optim.Adam([A], lr=0.03)
        for step in range(steps):
            Q = torch.linalg.qr(A).Q
            if side == "outputs":
                whole = X @ matrix + same
                logits = whole - whole @ Q @ Q.mT
            else:
                logits = X @ (matrix - Q @ (Q.mT @ matrix)) + same
            own, margins = logits.gather(1, target[:, None]), _margins(logits, target)
            told = margins.amin(1)[~held_out]
            rivals = margins.masked_fill(is_other_set, 1e9) if against == "implications" else margins
            lost = rivals.amin(1)[held_out]
            distance = float(torch.minimum(told.min(), -lost.max()).detach())
            if distance > best["distance"]:
                mean = logits[:, N:].mean(1)[held_out]
                coefficient = float((own[held_out, 0] - mean).mean().detach()) * N / (N - 1)
                basis = Q.detach().numpy().copy()
                best = {
                    "distance": distance,
                    "smallest_told": float(told.min().detach()),
                    "largest_held_out": float(lost.max().detach()),
                    "held_out_coefficient": coefficient,
                }
            tau = max(0.3 * (1 - step / steps), 0.01)
            soft = [tau * torch.logsumexp(v / tau, 0) for v in (-told, lost)]
            optimizer.zero_grad()
            torch.maximum(*soft).backward()
            optimizer.step()
    return basis, best


def _margins(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Logit of the right answer minus that of every answer; a large number at the right answer itself."""
    own = logits.gather(1, target[:, None])
    return own - logits.scatter(1, target[:, None], -1e9)

"""Which edges of a set can carry a difference from the input to the logits, and the largest such sets.

Paths know positions. An edge lies at every position; MLPs and queries keep a position, keys and values carry
what is at one position to all later ones. So for a prompt whose embeddings differ from the ablated ones at
positions D, what a writer writes can differ at D or at all positions from the first of D on, and what a
reader reads matters at the query or at all positions up to it. Whether these overlap depends on one thing
alone: whether D has the query itself (`differs_at_query`). If it has, every path carries the difference; if
D lies before the query, those that pass keys or values of a head do.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ocr_interp.ablation.edits.resample import donors as derangement
from ocr_interp.discovery.contrast import Contrast
from ocr_interp.errors import ConfigError
from ocr_interp.stream.nodes import StreamNodes


def differs_at_query(contrast: Contrast, ablation: str, seed: int) -> bool:
    """Whether the token at the query differs, in some prompt, from that of which ablated edges carry.

    Args:
        contrast: prompts, donors and queries.
        ablation: what an ablated edge carries, an entry of `runner.ABLATIONS`.
        seed: of "resample".

    Raises:
        ConfigError: no prompt differs at its query or before it.
    """
    differs = _differences(contrast, ablation, seed)
    length = differs.shape[1]
    query = torch.full((len(differs),), length - 1) if contrast.query is None else contrast.query % length
    query = query.to(differs.device)[:, None]
    if not bool((differs & (torch.arange(length, device=differs.device) <= query)).any()):
        other = "donors" if ablation == "donor" else f"what {ablation!r} puts instead"
        raise ConfigError(
            f"prompts and {other} must differ in some token at the query or before it, got none that does: "
            "there is nothing that a circuit could carry; pass donors that differ in what is asked for"
        )
    return bool(differs.gather(1, query).any())


def _differences(contrast: Contrast, ablation: str, seed: int) -> Bool[Tensor, "batch pos"]:
    """Where the embeddings of a prompt are others than those that an ablated edge carries."""
    prompts, donors = contrast.prompts, contrast.donors
    if ablation == "donor":
        assert donors is not None
        return prompts != donors
    if ablation == "mean":
        return (prompts[:, None] != (prompts if donors is None else donors)[None]).any(1)
    if ablation == "resample":
        order = derangement(len(prompts), torch.Generator().manual_seed(seed))
        return prompts != prompts[order.to(prompts.device)]
    return torch.ones_like(prompts, dtype=torch.bool)


def live(
    nodes: StreamNodes, mask: Bool[np.ndarray, "writer reader"], at_query: bool = True
) -> Bool[np.ndarray, "writer reader"]:
    """The edges of a set that can carry a difference, by edges of the set, from the input to the logits.

    A head that reads at one of its inputs alone counts as reached; the others are then ablated.

    Args:
        nodes: of the model.
        mask: the set.
        at_query: whether the input differs at the query; otherwise it does at earlier positions alone, and
            only keys and values bring the difference to the query.
    """
    mask = np.asarray(mask, dtype=bool) & nodes.allowed
    readers_of = [list(nodes.nodes_reading(writer)) for writer in nodes.writers]
    # A head's keys and values read all positions up to its own; its queries and MLPs read their own.
    moving = [inputs[1:] if len(inputs) > 1 else [] for inputs in readers_of]
    reached = np.zeros(len(nodes.writers), dtype=bool)  # what is written can differ somewhere
    arrived = np.zeros_like(reached)  # and at the query
    reached[0], arrived[0] = True, at_query
    for writer in range(1, len(nodes.writers)):  # in the order in which they write
        read = mask[:, readers_of[writer]]
        reached[writer] = bool((read & reached[:, None]).any())
        arrived[writer] = bool(
            (read & arrived[:, None]).any() or (mask[:, moving[writer]] & reached[:, None]).any()
        )
    wanted = np.zeros(len(nodes.readers), dtype=bool)  # a difference at the query matters
    earlier = np.zeros_like(wanted)  # and one before it
    wanted[-1] = True
    for writer in reversed(range(len(nodes.writers))):
        if (mask[writer] & wanted).any():
            wanted[readers_of[writer]] = True
            earlier[moving[writer]] = True
        if (mask[writer] & earlier).any():
            earlier[readers_of[writer]] = True
    return mask & (np.outer(arrived, wanted) | np.outer(reached, earlier))


def largest_live(
    nodes: StreamNodes, sizes: Float[np.ndarray, "writer reader"], most: int, at_query: bool = True
) -> Bool[np.ndarray, "writer reader"]:
    """The live part of the top edges, with as many top edges as leave at most `most` live ones.

    Edges are ranked by size; of equal ones the first is first. The live part grows with the number of top
    edges, so this number is found by bisection. Where the first path comes with more than `most` edges at
    once, the shortest path among them is kept, and with it as many top edges as fit.

    Args:
        nodes: of the model.
        sizes: of the edges.
        most: largest number of live ones.
        at_query: as for `live`.
    """
    places = np.flatnonzero(nodes.allowed)
    order = places[np.argsort(-sizes.ravel()[places], kind="stable")]

    def of(count: int, core: np.ndarray) -> np.ndarray:
        mask = core.copy()
        mask.ravel()[order[:count]] = True
        return live(nodes, mask, at_query)

    def largest(core: np.ndarray) -> int:
        low, high = 0, len(order)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if of(middle, core).sum() <= most else (low, middle - 1)
        return low

    nothing = np.zeros(nodes.allowed.shape, dtype=bool)
    count = largest(nothing)
    found = of(count, nothing)
    if found.any() or count == len(order):
        return found
    core = shortest_path(nodes, of(count + 1, nothing), at_query)
    return of(largest(core), core) if core.sum() <= most else found


def shortest_path(
    nodes: StreamNodes, mask: Bool[np.ndarray, "writer reader"], at_query: bool = True
) -> Bool[np.ndarray, "writer reader"]:
    """The path of fewest edges, within a set, that carries a difference from the input to the logits.

    Args:
        nodes: of the model.
        mask: the set; it is empty where the set has no such path.
        at_query: as for `live`.
    """
    # (writer, whether the difference is at the query) -> edges of the shortest way there.
    ways: dict[tuple[int, bool], tuple[tuple[int, int], ...]] = {(0, at_query): ()}

    def shortest(reader: int, arrived: bool, moves: bool) -> list[tuple[tuple[int, int], ...]]:
        """Ways to what a reader reads, after which the difference is at the query or not."""
        before = (False, True) if moves else (arrived,)
        return [
            (*ways[writer, was], (writer, reader))
            for writer in np.flatnonzero(mask[:, reader]).tolist()
            for was in before
            if (writer, was) in ways
        ]

    for writer in range(1, len(nodes.writers)):
        inputs = nodes.nodes_reading(nodes.writers[writer])
        for arrived in (False, True):
            found = []
            for k, reader in enumerate(inputs):
                moves = len(inputs) > 1 and k > 0
                if arrived or not moves:
                    found += shortest(reader, arrived, moves)
            if found:
                ways[writer, arrived] = min(found, key=len)
    path = np.zeros(nodes.allowed.shape, dtype=bool)
    for edge in min(shortest(len(nodes.readers) - 1, True, False), key=len, default=()):
        path[edge] = True
    return path

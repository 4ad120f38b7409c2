"""Matched random controls: the same kind of intervention, as large, somewhere at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.ablation.interventions import SubspaceAblation
from ocr_interp.ablation.paths import PathAblation
from ocr_interp.ablation.random_positions import RandomPositions
from ocr_interp.ablation.sites import Site
from ocr_interp.ablation.spec import Intervention
from ocr_interp.hooked.protocol import HookedModel, check_tokens
from ocr_interp.hooked.tokens import labels_of

RANDOM, EQUAL_NORM = "random", "random, equal norm"
"""Names of controls: of the same size, and rescaled to remove equally much."""


def matched_controls(
    spec: Intervention,
    model: HookedModel,
    seed: int,
    inputs: Sequence[int],
    outputs: Sequence[int],
    length: int,
) -> dict[str, Intervention]:
    """Random interventions to compare one with; none where there is nothing to draw.

    - A subspace: a uniformly random one of equal rank in the same space ("random"), and the same scaled
      to remove as large a norm from the batch ("random, equal norm"; it may take more than all there is).
    - A path: in each prompt as many random positions as hold its inputs, and as many random outputs.
    - A site with tokens: in each prompt as many random positions as the site chooses there. So a control
      touches as many prompts, and as many positions of each, as the intervention; which tokens stand
      there, and how much attention they get, is not matched.
    - Any other: as many random positions, the same ones in every prompt, else as many random heads.

    A draw may hit what the intervention hits: it is one of all that are as large. `touched` counts positions.

    Args:
        spec: what is to be matched.
        model: says how many heads there are.
        seed: of the draw.
        inputs: token ids; positions are drawn that hold one of them.
        outputs: token ids to draw from.
        length: positions of a sequence.
    """
    rng = np.random.default_rng(seed)
    if isinstance(spec, SubspaceAblation):
        drawn = torch.as_tensor(rng.standard_normal(tuple(spec.basis.shape))).to(spec.basis)
        basis = torch.linalg.qr(drawn).Q
        equal = spec.basis if spec.equal_to is None else spec.equal_to
        return {
            RANDOM: replace(spec, basis=basis, equal_to=None),
            EQUAL_NORM: replace(spec, basis=basis, equal_to=equal),
        }
    if isinstance(spec, PathAblation):
        onto = None if spec.outputs is None else _draw(rng, outputs, len(spec.outputs))
        drawn_inputs = spec.elsewhere if len(spec.inputs) >= len(inputs) else _positions(rng, inputs)
        if drawn_inputs is None and onto is None:
            return {}
        return {RANDOM: replace(spec, outputs=onto, elsewhere=drawn_inputs)}
    site = getattr(spec, "site", None)
    drawn_site = None if site is None else _random_site(site, model, rng, inputs, length)
    return {} if drawn_site is None else {RANDOM: replace(spec, site=drawn_site)}  # pyright: ignore


def touched(
    spec: Intervention, model: HookedModel, tokens: Int[Tensor, "batch pos"], labels: Sequence[str] | None
) -> Float[Tensor, " batch"]:
    """How many positions of each prompt an intervention acts on, of paths as keys; NaN if it does not say.

    Heads are not counted, nor is it asked whether the logits depend on a position.
    """
    site = getattr(spec, "site", None)
    if isinstance(spec, PathAblation):
        site = Site("keys", tokens=spec.inputs, elsewhere=spec.elsewhere)
    if site is None:
        return torch.full((len(tokens),), torch.nan)
    names = None if site.tokens is None else check_tokens(site.tokens, labels_of(model, labels))
    every = torch.ones_like(tokens, dtype=torch.bool)
    return site.chosen(every, tokens, None if names is None else frozenset(names)).sum(1).float()


def _positions(rng: np.random.Generator, inputs: Sequence[int]) -> RandomPositions:
    return RandomPositions(int(rng.integers(2**31)), tuple(inputs))


def _random_site(
    site: Site, model: HookedModel, rng: np.random.Generator, inputs: Sequence[int], length: int
) -> Site | None:
    """As many random positions or heads; None if all there are is chosen already."""
    heads = range(_head_count(site, model))
    if site.tokens is not None and len(site.tokens) < len(inputs):
        return replace(site, elsewhere=_positions(rng, inputs))
    if site.positions is not None and len(site.positions) < length:
        return replace(site, positions=_draw(rng, range(length), len(site.positions)))
    if site.heads is not None and len(site.heads) < len(heads):
        return replace(site, heads=_draw(rng, heads, len(site.heads)))
    return None


def _head_count(site: Site, model: HookedModel) -> int:
    """Entries of the head axis: of grouped models, values and keys have fewer."""
    grouped = getattr(model.cfg, "n_key_value_heads", None)
    by_group = site.hook.endswith(("hook_v", "hook_k"))
    return int(grouped if grouped and by_group else model.cfg.n_heads)


def _draw(rng: np.random.Generator, pool: Sequence[int], count: int) -> tuple[int, ...]:
    return tuple(sorted(int(k) for k in rng.choice(np.asarray(pool), min(count, len(pool)), replace=False)))

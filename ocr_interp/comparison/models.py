"""`compare_models`: which heads, MLPs, OV and QK circuits changed on some tokens, beside random changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocr_interp.checks import check_count, check_flag
from ocr_interp.circuits.attention.qk import QKCircuit
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.comparison.circuits import CircuitChange, compare, ratio
from ocr_interp.comparison.model_change import KINDS, ModelChange, UnitChange
from ocr_interp.comparison.reading import Matrix, ReadModel, check_alike, read_model, relation_of
from ocr_interp.errors import ModelError
from ocr_interp.hooked.adapted.copies import with_side
from ocr_interp.hooked.asked.scores import ask_scores
from ocr_interp.hooked.passes import own_run
from ocr_interp.hooked.protocol import AdaptedModel, HookedModel
from ocr_interp.hooked.tokens.ids import Tokens
from ocr_interp.hooked.tokens.labels import labels_of, names_of, output_labels_of, tokenizer_of
from ocr_interp.hooked.tokens.token_set import TokenSet, token_set_of
from ocr_interp.models.trained import TrainedModel

STATEMENT = (
    "relative changes ‖W' - W‖ / ‖W‖: of the weights (W_V W_O, W_Q W_Kᵀ, W_in, W_out), and of what they do "
    "between the tokens; random: the same changes of both weight matrices, turned in random directions"
)


def compare_models(
    before: HookedModel | AdaptedModel | TrainedModel,
    after: HookedModel | AdaptedModel | TrainedModel | None = None,
    *,
    inputs: Tokens,
    outputs: Tokens,
    circuits: int | Sequence[tuple[int, int]] = 3,
    mlps: bool = True,
    tolerance: float = 0.05,
    controls: int = 3,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    output_labels: Sequence[str] | None = None,
) -> ModelChange:
    """Which heads and MLPs changed from one state of a model to another, on some tokens.

    Every head's OV and QK circuit and what every MLP reads and writes is compared between the tokens, beside
    the same changes of its weights in random directions: a head that changed more than these do changed for
    these tokens. The most changed circuits are then compared by degenerate block, see `compare`. Circuits
    lead straight from embeddings to logits; what earlier layers write is not in them.

    Args:
        before, after: HookedTransformers, TransformerBridges, PeftModels, or two snapshots of a run. Without
            `after`, a model with adapters is compared without and with them; nothing needs to be merged.
        inputs, outputs: ids, labels or strings of one token each, or named groups of them.
        circuits: how many OV and QK circuits are compared by block, the most changed between the tokens; or
            (layer, head) of the heads whose OV and QK circuits are.
        mlps: whether MLPs are read too.
        tolerance: of the blocks.
        controls: number of random changes.
        seed: of their directions.
        labels, output_labels: a label for every token id, and for every logit.

    Raises:
        ModelError: two architectures or vocabularies; no adapters where `after` is left out; a model whose
            heads do something else than their weights say.
        UnknownNameError: an unknown token, with the close matches.
    """
    check_count("controls", controls, 0)
    check_count("seed", seed, 0)
    check_flag("mlps", mlps)
    first, second, sides = _sides(before, after)
    with with_side(first, sides[0]) as hooked, own_run(hooked):
        names = labels_of(hooked, labels)
        rows = token_set_of(hooked, inputs, names, "inputs")
        output_names = output_labels_of(hooked, labels, output_labels)
        columns = token_set_of(hooked, outputs, output_names, "outputs")
        shape = hooked
        old = read_model(hooked, rows, columns, mlps=mlps)
    with with_side(second, sides[1]) as hooked, own_run(hooked):
        check_alike(shape, hooked)
        if labels is None and _is_named(shape) and _is_named(hooked):
            _check_tokens(hooked, rows, columns, output_labels)
        new = read_model(hooked, rows, columns, mlps=mlps)
    units = _units(old, new, controls, seed)
    chosen = _chosen(units, circuits, shape)
    options = {"tolerance": tolerance, "controls": controls, "seed": seed}
    tokens = {"inputs": _groups(rows), "outputs": _groups(columns), "labels": names}
    tokens["output_labels"] = output_names
    return ModelChange(
        before=(old.name, old.fingerprint),
        after=(new.name, new.fingerprint),
        inputs=rows,
        outputs=columns,
        units=units,
        circuits=_by_block((first, second), sides, chosen, units, tokens, options),
        statement=STATEMENT,
        notes=tuple(dict.fromkeys((*relation_of(old, new), *old.notes, *new.notes))),
        seed=seed,
    )


def _sides(before: Any, after: Any) -> tuple[Any, Any, tuple[str, str]]:
    """Both models, and which side of each is read."""
    before, after = (m.model if isinstance(m, TrainedModel) else m for m in (before, after))
    if after is not None:
        return before, after, ("merged", "merged")
    return before, before, ("base", "merged")


def _is_named(model: HookedModel) -> bool:
    """Whether a model says what its tokens are; a copy has no labels attached."""
    return names_of(model).labels is not None or tokenizer_of(model) is not None


def _check_tokens(
    model: HookedModel, rows: TokenSet, columns: TokenSet, output_labels: Sequence[str] | None
) -> None:
    """Requires that the ids mean the same tokens in the second model."""
    for names, tokens, what in (
        (labels_of(model, None), rows, "inputs"),
        (output_labels_of(model, None, output_labels), columns, "outputs"),
    ):
        theirs = tuple(names[token] for token in tokens.ids)
        if theirs != tokens.labels:
            k = next(
                k for k, pair in enumerate(zip(theirs, tokens.labels, strict=True)) if pair[0] != pair[1]
            )
            raise ModelError(
                f"two models that are compared must have one vocabulary, got {what} with id "
                f"{tokens.ids[k]} = {tokens.labels[k]!r} before and {theirs[k]!r} after"
            )


def _units(old: ReadModel, new: ReadModel, controls: int, seed: int) -> tuple[UnitChange, ...]:
    """Every circuit that both states have."""
    generator = torch.Generator().manual_seed(seed)
    draws: dict[tuple[int, int], Tensor] = {}

    def turn(draw: int, size: int, like: Tensor) -> Tensor:
        """A random rotation, the same for all units of one width in one draw."""
        if (draw, size) not in draws:
            Q, R = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
            draws[draw, size] = Q * R.diagonal().sign()
        return draws[draw, size].to(like)

    found = []
    for key, first in old.circuits.items():
        if key not in new.circuits:
            continue
        kind, layer, head = key
        second = new.circuits[key]
        W = first.product()
        size, change = float(W.norm()), float((second.product() - W).norm())
        random = [
            ratio(float((_turned(first, second, draw, turn) - W).norm()), size) if change or size else 0.0
            for draw in range(controls)
        ]
        found.append(
            UnitChange(
                unit=f"MLP {layer}" if head is None else f"L{layer}H{head}",
                kind=kind,
                layer=layer,
                head=head,
                weights=_of_weights(first, second),
                tokens=ratio(change, size),
                random=np.array(random),
            )
        )
    order = {key: k for k, key in enumerate(KINDS)}
    found.sort(key=lambda u: (u.layer, u.head is None, -1 if u.head is None else u.head, order[u.kind]))
    return tuple(found)


def _turned(first: Matrix, second: Matrix, draw: int, turn: Any) -> Tensor:
    """The circuit if the changes of its weights pointed elsewhere; embeddings change as they did."""
    weights = []
    for old, new in ((first.first, second.first), (first.second, second.second)):
        if old is None or new is None:
            weights.append(None)
            continue
        change = new - old
        for dim in (0, 1):
            width = change.shape[dim]
            if width <= LARGEST_TURN and bool(change.any()):
                Q = turn(draw, width, change)
                change = Q @ change if dim == 0 else change @ Q
        weights.append(old + change)
    return second.product(*weights)


LARGEST_TURN = 1024
"""Wider sides of a matrix (an MLP's neurons) are not turned; the other side is."""


def _of_weights(first: Matrix, second: Matrix) -> float:
    """Relative change of the weights by themselves; of heads, of the product, which is not formed."""
    if first.second is None or second.second is None:
        return ratio(float((second.first - first.first).norm()), float(first.first.norm()))
    change = (
        torch.cat([second.first - first.first, first.first], 1),
        torch.cat([second.second, second.second - first.second], 0),
    )
    return ratio(_norm(*change), _norm(first.first, first.second))


def _norm(left: Tensor, right: Tensor) -> float:
    """‖left right‖_F from the triangular factors of both, so that nothing large is formed."""
    R_left, R_right = (torch.linalg.qr(x, mode="r").R for x in (left, right.mT))
    return float((R_left @ R_right.mT).norm())


def _chosen(
    units: tuple[UnitChange, ...], circuits: int | Sequence[tuple[int, int]], model: HookedModel
) -> list[tuple[str, int, int]]:
    """(kind, layer, head) of the circuits that are compared by block."""
    if not isinstance(circuits, int):
        asked = [(int(layer), int(head)) for layer, head in circuits]
        known = {(u.layer, u.head) for u in units if u.head is not None}
        for place in asked:
            if place not in known:
                raise ModelError(
                    f"circuits must be (layer, head) of the model ({model.cfg.n_layers} layers of "
                    f"{model.cfg.n_heads} heads), got {place}"
                )
        return [
            (k, *p)
            for p in asked
            for k in ("OV", "QK")
            if any((u.kind, u.layer, u.head) == (k, *p) for u in units)
        ]
    check_count("circuits", circuits, 0)
    heads = [u for u in units if u.head is not None and u.tokens > 0]
    heads.sort(key=lambda u: -u.tokens)
    return [(u.kind, u.layer, u.head) for u in heads[:circuits] if u.head is not None]


def _by_block(
    models: tuple[Any, Any],
    sides: tuple[str, str],
    chosen: list[tuple[str, int, int]],
    units: tuple[UnitChange, ...],
    tokens: dict[str, Any],
    options: dict[str, Any],
) -> dict[str, CircuitChange]:
    found: dict[str, list[Any]] = {}
    for model, side in zip(models, sides, strict=True):
        for kind, layer, head in chosen:
            where = {"layer": layer, "head": head}
            if kind == "OV":
                circuit: Any = OVCircuit.from_model(model, **where, **tokens, of=side)
            else:
                with with_side(model, side) as hooked:
                    rotary = ask_scores(hooked, [layer])[layer].rotary
                    given = {
                        "queries": tokens["inputs"],
                        "keys": tokens["inputs"],
                        "labels": tokens["labels"],
                    }
                    circuit = QKCircuit.from_model(
                        hooked, **where, **given, distance=None if rotary is None else 0
                    )
            found.setdefault(f"L{layer}H{head} {kind}", []).append(circuit)
    return {name: compare(*pair, **options) for name, pair in found.items()}


def _groups(tokens: TokenSet) -> dict[str, list[int]]:
    return {name: [tokens.ids[k] for k in tokens.of_group(name)] for name in tokens.group_names}

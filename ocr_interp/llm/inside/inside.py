"""Inspects a fine-tuned model: which heads' OV circuits changed, and how the answers change without them.

In the theory's small model the OV circuit stores the implication; this tests whether it does in a real
language model. OV circuits of heads between names, relations and answers are compared (`token_circuits`),
and parts of the update are ablated (`cuts`).
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.devices import resolve_device
from ocr_interp.errors import ConfigError, ModelError, RunError, unknown_name
from ocr_interp.llm.adapters import methods
from ocr_interp.llm.adapters.base import Attached
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.inside.by_layer import ByLayer, by_layer
from ocr_interp.llm.inside.cuts import (
    KINDS,
    USUAL_KINDS,
    Cut,
    direction_cuts,
    head_cuts,
    other_heads,
    part_cuts,
    uncut,
)
from ocr_interp.llm.inside.foreseen import why_uncut
from ocr_interp.llm.inside.mean_over_names import mean_cuts
from ocr_interp.llm.inside.token_circuits import TokenCircuits, compare_circuits, read_circuits
from ocr_interp.llm.inside.token_sets import FactTokens, fact_tokens
from ocr_interp.llm.inside.truncation import TOP_K, check_top_k, truncation_cuts
from ocr_interp.llm.inside.updates import OVUpdate, ov_update, ov_weights
from ocr_interp.llm.measuring.measure import BY_FIRST_TOKEN, Questions
from ocr_interp.llm.measuring.scoring import describe_scoring
from ocr_interp.llm.models.bridge import as_bridge, check_text_only, viewed
from ocr_interp.llm.models.loading import LanguageModel, load_config, loading_failures, require_language_model
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.memory import refuse_too_many_copies
from ocr_interp.llm.training.update import how_to_keep, load_base, load_finetuned

_WIDTH = 70
"""Characters of a cut's name."""


@dataclass(frozen=True)
class Inside:
    """The result of inspecting a run.

    Attributes:
        facts: the fact set.
        update: change of every head's OV circuit.
        heads: (layer, head) of the most changed heads, largest change first.
        cuts: all cuts, the models without a cut first.
        circuits: OV circuits of these heads between tokens, beside as many random heads; or a text that says
            why there are none.
        scoring: what the answers of facts and implications were ranked by.
        uncut: why no heads and directions are cut; None if they are.
        left_out: other kinds of cuts that were asked for and could not be made -> why.
        layers: probes and patching by layer; a text that says why there are none; None if not asked for.
    """

    facts: FactSet
    update: OVUpdate
    heads: tuple[tuple[int, int], ...]
    cuts: tuple[Cut, ...]
    circuits: TokenCircuits | str
    scoring: Mapping[str, str] = field(default_factory=lambda: dict(BY_FIRST_TOKEN))
    uncut: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    layers: ByLayer | str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        cuts = [{"kind": c.kind, "what": c.what, "rank": c.ranks, "top1": c.top1} for c in self.cuts]
        circuits = self.circuits if isinstance(self.circuits, str) else self.circuits.to_dict()
        return {
            "heads": [list(h) for h in self.heads],
            "ov_update": self.update.to_dict(),
            "cuts": cuts,
            "circuits": circuits,
            "scoring": dict(self.scoring),
            **({"uncut": self.uncut} if self.uncut else {}),
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
            **({"layers": self.layers.to_dict()} if isinstance(self.layers, ByLayer) else {}),
            **({"layers": self.layers} if isinstance(self.layers, str) else {}),
        }

    def summary(self) -> str:
        """Heads, circuits and cuts as aligned text."""
        update = self.update
        lines = [
            "the heads whose W_V W_O changed most",
            f"{'head':>8}{'relative':>10}{'nuclear/Frobenius':>19}{'effective rank':>16}",
        ]
        for at in self.heads:
            lines.append(
                f"{f'{at[0]}.{at[1]}':>8}{update.relative[at]:>10.4f}"
                f"{update.nuclear_to_frobenius[at]:>19.2f}{update.effective_rank[at]:>16.1f}"
            )
        circuits = self.circuits
        lines += ["", f"no OV circuits: {circuits}" if isinstance(circuits, str) else circuits.summary()]
        lines += [
            "",
            f"mean rank (0 is best); {describe_scoring(self.scoring)}",
            f"{'':{_WIDTH}}{'facts':>8}{'told':>8}{'held out':>10}",
        ]
        for cut in self.cuts:
            told, held_out = (cut.ranks[f"{who}_implication"] for who in ("training", "held_out"))
            lines.append(f"{cut.what:{_WIDTH}}{cut.ranks['held_out_fact']:8.2f}{told:8.2f}{held_out:10.2f}")
        if self.uncut:
            lines.append(f"no heads and directions cut: {self.uncut}")
        if self.layers is not None:
            text = self.layers
            lines += ["", f"no layers patched: {text}" if isinstance(text, str) else text.summary()]
        lines += [f"no cut of the kind {kind!r}: {why}" for kind, why in self.left_out.items()]
        return "\n".join(lines)


def inspect_run(
    run_dir: str | Path,
    n_heads: int = 10,
    device: str = "auto",
    *,
    base: str | None = None,
    cuts: Sequence[str] = USUAL_KINDS,
    top_k: Sequence[int] = TOP_K,
    layers: bool = False,
) -> Inside:
    """Inspects a finished run that saved its model.

    Args:
        run_dir: directory of the run.
        n_heads: number of the most changed heads to ablate.
        device: "auto" (cuda, then mps, then cpu) or the name of a device.
        base: folder or name of the model before fine-tuning if it was moved; None is the run's own.
        cuts, top_k, layers: as of `inspect_models`.

    Raises:
        ModelError, RunError: no such run, one that is not finished or saved no model, one whose update cannot
            be merged into the weights, or whose files, facts or model before fine-tuning were changed.
        ConfigError: too little memory for three copies of the weights, or kinds of cuts or numbers of
            singular values that there are not; raised before any weight is loaded.
    """
    check_kinds(cuts)
    check_top_k(top_k)
    folder = RunFolder(Path(run_dir))
    config = folder.read_config()
    if not folder.result_file.exists():
        raise RunError(folder.progress())
    if not folder.model_folder.is_dir():
        if folder.adapter_file.exists():
            raise ModelError(Attached(methods[config.train.method], config.train).refusal("inspect"))
        raise ModelError(f"{run_dir} kept no model: {how_to_keep(folder)}")
    where, dtype = resolve_device(device), config.train.dtype
    own, inputs = str(folder.model_folder), folder.read_inputs()
    with loading_failures(own):
        hf_config = load_config(own)
        check_text_only(hf_config, config.train.model)
        working = 2 if ("mean" in cuts or layers) and where.type != "cpu" else 1
        refuse_too_many_copies(hf_config, dtype, loaded=2, working=working, device=where)
    facts = make_facts(config.facts) if inputs is None else inputs.facts_now(config.facts, folder.path)
    before, after = load_base(folder, base), load_finetuned(run_dir)
    scoring = config.facts.scoring
    chosen = {"cuts": cuts, "top_k": top_k, "layers": layers}
    return inspect_models(before, after, facts, n_heads, device, scoring=scoring, **chosen)


def inspect_models(
    before: LanguageModel,
    after: LanguageModel,
    facts: FactSet,
    n_heads: int = 10,
    device: str = "auto",
    *,
    scoring: str = "auto",
    cuts: Sequence[str] = USUAL_KINDS,
    top_k: Sequence[int] = TOP_K,
    layers: bool = False,
) -> Inside:
    """Compares a model before and after fine-tuning; neither is changed.

    Args:
        before, after: models of the same architecture, with updates merged.
        facts: the fact set whose test prompts measure the models.
        n_heads: number of the most changed heads to ablate.
        device: "auto" (cuda, then mps, then cpu) or the name of a device.
        scoring: how answers are ranked, see `FactConfig.scoring`.
        cuts: kinds of ablations, names in `cuts.KINDS`: "parts", "heads", "directions", "mean", "truncation".
            "truncation" decomposes every matrix and is made only if asked for.
        top_k: of "truncation", how many singular values of every ΔW are kept, or removed.
        layers: whether the residual stream is probed and patched layer by layer too (two measurements of the
            untold implications a layer).

    Raises:
        ConfigError: kinds or numbers that there are not.
        ModelError: a model whose update is not merged, an architecture that cannot be read, or more heads
            than the model has.
    """
    check_kinds(cuts)
    check_top_k(top_k)
    for name, lm in (("before", before), ("after", after)):
        require_language_model(name, lm)
        if lm.attached is not None:
            raise ModelError(lm.attached.refusal("inspect"))
    where = resolve_device(device)
    questions = Questions(facts, after.tokenizer, after.pad, scoring=scoring)
    questions.refuse_too_long(after.model)
    old, new = ov_weights(before), ov_weights(after)
    update = ov_update(old, new)
    if not 0 < n_heads < len(update.heads()):
        raise ModelError(f"n_heads must be in 1..{len(update.heads()) - 1}, got {n_heads}")
    heads = update.most_changed(n_heads)
    compared = (*heads, *other_heads(heads, update)[0])
    read, why_no_heads = _read_before(before, facts, compared, where)
    work = copy.deepcopy(after.model).to(where).eval()
    found, left_out = _cuts_of_weights(before, work, questions, where, cuts, top_k)
    of_layers = _by_layer(before, work, facts, where, scoring) if layers else None
    bridge = as_bridge(LanguageModel(after.name, work, after.tokenizer), where)  # rewrites `work`
    circuits = _compared(read, bridge, compared, n_heads)
    if why_no_heads is None:
        if "heads" in cuts:
            found += head_cuts(bridge, update, n_heads, questions, where)
        if "directions" in cuts:
            found += direction_cuts(bridge, heads, old, new, questions, where)
    said = (questions.scoring, why_no_heads, left_out, of_layers)
    return Inside(facts, update, heads, tuple(found), circuits, *said)


def check_kinds(cuts: Sequence[str]) -> None:
    """Requires kinds of cuts that there are.

    Raises:
        ConfigError: one that there is not.
    """
    for kind in cuts:
        if kind not in KINDS:
            raise unknown_name("kind of cut", kind, KINDS)


def _cuts_of_weights(
    before: LanguageModel,
    work: Any,
    questions: Questions,
    device: torch.device,
    cuts: Sequence[str],
    top_k: Sequence[int],
) -> tuple[list[Cut], dict[str, str]]:
    """The cuts that need no bridge, after the models without one; and why some cannot be made."""

    def mean() -> list[Cut]:
        return mean_cuts(viewed(before, device), work, questions, device)

    makers: dict[str, Callable[[], list[Cut]]] = {
        "parts": lambda: part_cuts(before, work, questions, device),
        "mean": mean,
        "truncation": lambda: truncation_cuts(before, work, questions, device, top_k),
    }
    found, left_out = uncut(before, work, questions, device), {}
    for kind in (kind for kind in makers if kind in cuts):
        try:
            found += makers[kind]()
        except ModelError as error:
            left_out[kind] = str(error)
    return found, left_out


def _by_layer(
    before: LanguageModel, work: Any, facts: FactSet, device: torch.device, scoring: str
) -> ByLayer | str:
    """Probes and patching, or why there are none."""
    try:
        return by_layer(viewed(before, device), work, facts, device, scoring=scoring)
    except (ConfigError, ModelError) as error:
        return str(error)


_Read = tuple[FactTokens, tuple[OVCircuit, ...]]


def _read_before(
    lm: LanguageModel, facts: FactSet, heads: Sequence[tuple[int, int]], device: torch.device
) -> tuple[_Read | str, str | None]:
    """The OV circuits of a model, or why there are none; and why its heads cannot be cut, if they cannot."""
    bridge = as_bridge(viewed(lm, device), device)
    try:
        tokens = fact_tokens(facts, lm.tokenizer)
        read: _Read | str = tokens, read_circuits(bridge, tokens, heads)
    except (ConfigError, ModelError) as error:
        read = str(error)
    uncut = why_uncut(bridge, heads[0])
    del bridge
    gc.collect()  # a bridge refers to itself: without this its weights would stay in memory
    return read, uncut


def _compared(
    read: _Read | str,
    bridge: Any,
    heads: Sequence[tuple[int, int]],
    n_chosen: int,
) -> TokenCircuits | str:
    """Circuits before and after fine-tuning, the latter read from a bridge; or why there are none."""
    if isinstance(read, str):
        return read
    tokens, before = read
    return compare_circuits(before, read_circuits(bridge, tokens, heads), tokens, n_chosen)

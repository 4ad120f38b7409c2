"""Inside a fine-tuned model: which heads' OV circuits changed, and what goes when they are taken away.

The theory says of the small model that the implication lives in the OV circuit; this asks the same of a
real one. OV circuits of heads between names, relations and answers are compared (`token_circuits`), and
there are three kinds of cuts, each answered by the ranks of all four splits:

- parts: one part of the update alone is put back (or put in): OV, QK, MLPs, the rest;
- heads: the heads with the most changed OV circuit are zeroed, beside as many random ones (and the same
  past layer 0, without which nothing works);
- directions: of these heads, the top output directions of the update are removed from what they write,
  beside as many random directions that they write.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.base import Intervention
from ocr_interp.ablation.edits.subspace import Subspace
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.site import Site
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.devices import resolve_device
from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.linalg.spectrum import factored_svd
from ocr_interp.llm.facts.drawing import make_facts
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.inside.token_circuits import TokenCircuits, compare_circuits, read_circuits
from ocr_interp.llm.inside.token_sets import FactTokens, fact_tokens
from ocr_interp.llm.inside.updates import OVUpdate, OVWeights, ov_update, ov_weights
from ocr_interp.llm.measuring.measure import Measurement, Questions
from ocr_interp.llm.models.bridge import as_bridge, bridge_logits
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.loading import LanguageModel, load_config, load_model, loading_failures
from ocr_interp.llm.training.memory import refuse_too_many_copies
from ocr_interp.llm.training.store import RunFolder
from ocr_interp.task import SPLITS

RANDOM_DRAWS = 3
DIRECTIONS = 4

_PARTS = {
    "OV": ("self_attn.v_proj", "self_attn.o_proj"),
    "QK": ("self_attn.q_proj", "self_attn.k_proj"),
    "MLP": (".mlp.",),
}
REST = "embeddings and norms"


@dataclass(frozen=True)
class Cut:
    """What was taken away, and how the model answers without it.

    Attributes:
        kind: "none", "parts", "heads" or "directions".
        what: in words.
        ranks: mean rank by split; of random controls the mean over draws.
        top1: share of rank 0 by split.
    """

    kind: str
    what: str
    ranks: dict[str, float]
    top1: dict[str, float]


@dataclass(frozen=True)
class Inside:
    """What inspecting a run found.

    Attributes:
        facts: the fact set.
        update: change of every head's OV circuit.
        heads: (layer, head) of the most changed, largest first.
        cuts: all cuts, the uncut models first.
        circuits: OV circuits of these heads between tokens, beside as many random heads; or why there are
            none.
    """

    facts: FactSet
    update: OVUpdate
    heads: tuple[tuple[int, int], ...]
    cuts: tuple[Cut, ...]
    circuits: TokenCircuits | str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        cuts = [{"kind": c.kind, "what": c.what, "rank": c.ranks, "top1": c.top1} for c in self.cuts]
        circuits = self.circuits if isinstance(self.circuits, str) else self.circuits.to_dict()
        return {
            "heads": [list(h) for h in self.heads],
            "ov_update": self.update.to_dict(),
            "cuts": cuts,
            "circuits": circuits,
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
        lines += ["", "mean rank (0 is best)", f"{'':52}{'facts':>8}{'told':>8}{'held out':>10}"]
        for cut in self.cuts:
            told, held_out = (cut.ranks[f"{who}_implication"] for who in ("training", "held_out"))
            lines.append(f"{cut.what:52}{cut.ranks['held_out_fact']:8.2f}{told:8.2f}{held_out:10.2f}")
        return "\n".join(lines)


def inspect_run(run_dir: str | Path, n_heads: int = 10, device: str = "auto") -> Inside:
    """Inspects a finished run that kept its model.

    Raises:
        ModelError, RunError: no such run, or it kept no model.
        ConfigError: too little memory for three copies of the weights, before any is loaded.
    """
    folder = RunFolder(Path(run_dir))
    config = folder.read_config()
    if not folder.model_folder.is_dir():
        raise ModelError(f"{run_dir} kept no model: fine-tune with save_model=True (--save-model)")
    where, dtype = resolve_device(device), config.train.dtype
    own = str(folder.model_folder)
    with loading_failures(own):
        refuse_too_many_copies(load_config(own), dtype, loaded=2, working=1, device=where)
    before = load_model(config.train.model, dtype=dtype)
    after = load_model(own, dtype=dtype)
    return inspect_models(before, after, make_facts(config.facts), n_heads, device)


def inspect_models(
    before: LanguageModel, after: LanguageModel, facts: FactSet, n_heads: int = 10, device: str = "auto"
) -> Inside:
    """Compares a model before and after fine-tuning; both are left as they were.

    Args:
        before, after: the same architecture; LoRA merged.
        facts: what to ask.
        n_heads: how many of the most changed heads to take away.
        device: "auto" (cuda, then mps, then cpu) or a name.
    """
    where = resolve_device(device)
    questions = Questions(facts, after.tokenizer, after.pad)
    old, new = ov_weights(before.model), ov_weights(after.model)
    update = ov_update(old, new)
    if not 0 < n_heads < update.relative.size:
        raise ModelError(f"n_heads must be in 1..{update.relative.size - 1}, got {n_heads}")
    heads = update.most_changed(n_heads)
    compared = (*heads, *_others(heads, update.relative.shape)[0])
    read = _read_copy(before, facts, compared, where)
    work = copy.deepcopy(after.model).to(where).eval()
    cuts = _parts(before.model, after.model, work, questions, where)
    bridge = as_bridge(LanguageModel(after.name, work, after.tokenizer), where)  # rewrites `work`
    circuits = _compared(read, bridge, compared, n_heads)
    cuts += _heads(bridge, update, n_heads, questions, where)
    cuts += _directions(bridge, heads, old, new, questions, where)
    return Inside(facts, update, heads, tuple(cuts), circuits)


def _read_copy(
    lm: LanguageModel, facts: FactSet, heads: Sequence[tuple[int, int]], device: torch.device
) -> tuple[FactTokens, tuple[OVCircuit, ...]] | str:
    """The OV circuits of a model that is left as it was; the reason where it or the facts have none."""
    try:
        tokens = fact_tokens(facts, lm.tokenizer)
        copied = LanguageModel(lm.name, copy.deepcopy(lm.model).to(device).eval(), lm.tokenizer)
        read = tokens, read_circuits(as_bridge(copied, device), tokens, heads)
    except (ConfigError, ModelError) as error:
        return str(error)
    gc.collect()  # a bridge refers to itself: without this its weights would stay beside the next copy's
    return read


def _compared(
    read: tuple[FactTokens, tuple[OVCircuit, ...]] | str,
    bridge: Any,
    heads: Sequence[tuple[int, int]],
    n_chosen: int,
) -> TokenCircuits | str:
    """Circuits of before beside those of a bridge of the model after; or why there are none."""
    if isinstance(read, str):
        return read
    tokens, before = read
    return compare_circuits(before, read_circuits(bridge, tokens, heads), tokens, n_chosen)


# --- parts ------------------------------------------------------------------------------------------


def part_of(name: str) -> str:
    """The part that a parameter belongs to: OV, QK, MLP or the rest."""
    for part, marks in _PARTS.items():
        if any(mark in name for mark in marks):
            return part
    return REST


@contextmanager
def weights_from(model: Any, source: Any, chosen: Callable[[str], bool]) -> Iterator[None]:
    """Parameters of `model` whose names are chosen hold those of `source` while the block runs."""
    theirs, kept = dict(source.named_parameters()), {}
    try:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if chosen(name):
                    kept[name] = parameter.detach().clone()
                    parameter.copy_(theirs[name])
        yield
    finally:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in kept:
                    parameter.copy_(kept[name])


def _parts(before: Any, after: Any, work: Any, questions: Questions, device: torch.device) -> list[Cut]:
    def asked(kind: str, what: str, chosen: Callable[[str], bool]) -> Cut:
        with weights_from(work, before, chosen):
            return _cut(kind, what, [questions.ask(lambda batch: answer_logits(work, batch), device)])

    changed = {part_of(n) for n, p in after.named_parameters() if not torch.equal(p, _like(before, n, p))}
    cuts = [
        asked("none", "before fine-tuning", lambda name: True),
        asked("none", "after fine-tuning", lambda name: False),
    ]
    for part in (*_PARTS, REST):
        if part in changed:
            cuts.append(asked("parts", f"{part} put back", lambda name, p=part: part_of(name) == p))
            cuts.append(asked("parts", f"only {part} changed", lambda name, p=part: part_of(name) != p))
    return cuts


def _like(model: Any, name: str, parameter: Tensor) -> Tensor:
    return model.get_parameter(name).to(parameter.device)


# --- heads and directions ---------------------------------------------------------------------------


def _others(
    heads: Sequence[tuple[int, int]], shape: tuple[int, int], first_layer: int = 0
) -> list[list[tuple[int, int]]]:
    """Draws of as many other heads (of all others, if they are fewer), from a layer on."""
    rng = np.random.default_rng(0)
    others = [(k, h) for k in range(first_layer, shape[0]) for h in range(shape[1]) if (k, h) not in heads]
    count = min(len(heads), len(others))
    return [[others[k] for k in rng.choice(len(others), count, False)] for _ in range(RANDOM_DRAWS)]


def _heads(
    bridge: Any, update: OVUpdate, n_heads: int, questions: Questions, device: torch.device
) -> list[Cut]:
    """The most changed heads and random others; again past layer 0, on which all layers depend."""
    cuts, shape = [], update.relative.shape
    for first, where in ((0, ""), (1, " past layer 0")):
        heads = update.most_changed(min(n_heads, (shape[0] - first) * shape[1] - 1), first)
        if not heads:
            continue
        draws = _others(heads, shape, first)
        for what, choices in (("most changed heads", [heads]), ("other heads, drawn at random,", draws)):
            found = [_ablated(bridge, _zeros(choice), questions, device) for choice in choices]
            what = what.replace("heads", f"heads{where}")
            cuts.append(_cut("heads", f"{len(choices[0])} {what} zeroed", found))
    return cuts


def _zeros(heads: Sequence[tuple[int, int]]) -> list[Intervention]:
    layers = sorted({layer for layer, _ in heads})
    sites = [Site.at("z", layer=layer, heads=[h for k, h in heads if k == layer]) for layer in layers]
    return [Zero().at(site) for site in sites]


def _directions(
    bridge: Any,
    heads: Sequence[tuple[int, int]],
    old: OVWeights,
    new: OVWeights,
    questions: Questions,
    device: torch.device,
) -> list[Cut]:
    """The update's top output directions, and as many random ones that the head writes."""
    rng = np.random.default_rng(1)
    count = min(DIRECTIONS, new.W_O.shape[2] - 1)

    def specs(random: bool) -> list[Intervention]:
        made: list[Intervention] = []
        for layer, head in heads:
            (V0, O0), (V1, O1) = old.factors(layer, head), new.factors(layer, head)
            if random:
                basis = np.linalg.qr(O1.T @ rng.standard_normal((O1.shape[0], count)))[0]
            else:
                basis = factored_svd(np.hstack([V1 - V0, V0]), np.vstack([O1, O1 - O0]))[2][:, :count]
            site = Site.at("z", layer=layer, heads=[head])
            made.append(Subspace(torch.as_tensor(basis), torch.as_tensor(O1)).at(site))
        return made

    name = f"of {len(heads)} heads {count}"
    return [
        _cut(
            "directions",
            f"{name} top directions removed",
            [_ablated(bridge, specs(False), questions, device)],
        ),
        _cut(
            "directions",
            f"{name} random directions removed",
            [_ablated(bridge, specs(True), questions, device) for _ in range(RANDOM_DRAWS)],
        ),
    ]


def _ablated(
    bridge: Any, specs: Sequence[Intervention], questions: Questions, device: torch.device
) -> Measurement:
    with ablated(bridge, *specs), torch.no_grad():
        return questions.ask(bridge_logits(bridge), device)


def _cut(kind: str, what: str, found: Sequence[Measurement]) -> Cut:
    """A cut with means over its measurements."""
    means = {
        metric: {split: float(np.mean([m.mean(split, metric) for m in found])) for split in SPLITS}
        for metric in ("rank", "top1")
    }
    return Cut(kind, what, means["rank"], means["top1"])

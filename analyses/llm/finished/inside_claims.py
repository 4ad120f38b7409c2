"""The claims of `llm.inside_figures`: which part of a fine-tuned language model stores the implication.

The theory says the OV circuit. The criteria are in `inside_criteria`; those of CUTS were written down after
the first run (Profession-Color, full) and before the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from analyses.house.claims import Claim
from analyses.llm.finished.inside_criteria import (
    CLOSE,
    KEPT,
    LAYER_CRITERIA,
    LOST,
    LOW_RANK,
    PROBE_BEFORE,
    PROBE_FOUND,
    TAKEN_OVER,
    UPDATE_CRITERIA,
)
from analyses.llm.finished.inside_results import HEADS_CUT, SPLITS, Runs
from analyses.llm.finished.results import CHANCE
from analyses.llm.studies.plan import SMOLLM2, TITLES
from ocr_interp.llm.inside.cuts import DIRECTIONS
from ocr_interp.llm.inside.mean_over_names import REPLACED
from ocr_interp.llm.inside.truncation import kept_words

CUTS_PICTURE, TRUNCATION_PICTURE, LAYERS_PICTURE = "llm_inside", "llm_inside_truncation", "llm_inside_layers"
AFTER = "after fine-tuning"
FACT, TOLD, UNTOLD = SPLITS

CUTS = {
    "ov": ("OV put back", None, "the OV update of all heads"),
    "mlp": ("MLP put back", None, "the update of the MLPs"),
    "heads": (
        "{n} most changed heads past layer 0 zeroed",
        "{n} other heads past layer 0, drawn at random, zeroed",
        "the heads whose OV circuits changed most (random heads come from all layers)",
    ),
    "directions": (
        f"of {{n}} heads {DIRECTIONS} top directions removed",
        f"of {{n}} heads {DIRECTIONS} random directions removed",
        "the top directions of the OV updates",
    ),
}
"""A cut as the results name it, its random counterpart, and in words; n heads are cut."""

Single = tuple[str, dict[str, dict[str, Any]]]
"""Key of one inspected run, and its cuts by what was cut: kind and rank by split."""


def inside_claims(inspected: Sequence[Runs]) -> list[Claim]:
    """One claim per cut and model, and those of `inside_criteria` that the inspected runs can judge."""
    found = []
    for model in dict.fromkeys(runs.model for runs in inspected):
        own = [runs for runs in inspected if runs.model == model]
        found += [cut_claim(name, own) for name in CUTS]
    return [*found, *_update_claims(list(_single(inspected))), *_layer_claims(inspected)]


def picture_of_cuts(model: str) -> str:
    """The picture of a model's cuts."""
    return CUTS_PICTURE if model == SMOLLM2 else f"{CUTS_PICTURE}_{model}"


def cut_claim(name: str, inspected: Sequence[Runs]) -> Claim:
    """Whether a cut destroys the untold implications and keeps the facts, in every run of a model."""
    model = inspected[0].model
    what, at_random, words = CUTS[name]
    what = what.format(n=HEADS_CUT[model])
    holds, measured = [], {}
    for runs in inspected:
        cuts = runs.cuts()
        if what not in cuts:
            raise SystemExit(f"the results of {runs.key} have no cut {what!r}, they have {sorted(cuts)}")
        after, cut = cuts[AFTER][UNTOLD], cuts[what]
        key = runs.key.replace(", ", "_")
        measured[f"untold_{key}"] = _short(cut[UNTOLD])
        measured[f"facts_{key}"] = _short(cut[FACT])
        if at_random is not None:
            measured[f"untold_{key}_random"] = _short(cuts[at_random.format(n=HEADS_CUT[model])][UNTOLD])
        holds += [
            ranks >= (start + CHANCE) / 2 and told <= KEPT
            for start, ranks, told in zip(after, cut[UNTOLD], cut[FACT], strict=True)
        ]
    return Claim(
        f"llm_inside_{name}" + ("" if model == SMOLLM2 else f"_{model}"),
        f"{TITLES[model]}: without {words} the untold implication goes and the told facts stay",
        "the theory of the small model (the implication lives in the OV circuit), asked of a real one",
        f"the held-out mean rank goes at least half of the way to chance ({CHANCE:g}), the facts' stays <= "
        f"{KEPT}, in every inspected run",
        measured,
        0.0,
        all(holds),
        picture_of_cuts(model),
    )


# --- cuts of the whole update, and heads matched by layer ---------------------------------------------


def _single(inspected: Iterable[Runs]) -> Iterator[Single]:
    for runs in inspected:
        for seed, result in zip(runs.seeds, runs.results, strict=True):
            cuts = {cut["what"]: {"kind": cut["kind"], **cut["rank"]} for cut in result["cuts"]}
            yield _run_key(runs, seed), cuts


def _run_key(runs: Runs, seed: int) -> str:
    """Key of one run: without the seed, runs of several seeds would overwrite each other."""
    return f"{runs.key.replace(', ', '_')}_seed{seed}"


def _update_claims(singles: list[Single]) -> Iterator[Claim]:
    """Those for which there is at least one run; runs of the first version have none of these cuts."""
    with_mean = [(key, cuts) for key, cuts in singles if REPLACED in cuts]
    if with_mean:
        ranks = {key: [cuts[REPLACED][split] for split in SPLITS] for key, cuts in with_mean}
        holds = all(rank >= LOST for of_run in ranks.values() for rank in of_run)
        source = "a negative control: fine-tuning as a steering vector (arXiv 2507.08218)"
        yield _claim("mean_over_names", UPDATE_CRITERIA, source, ranks, holds, CUTS_PICTURE)
    matched = {key: pairs for key, cuts in singles if (pairs := _matched_pairs(cuts))}
    if matched:
        measured = {
            f"{key}_{name}": [most[FACT], random[FACT], most[UNTOLD], random[UNTOLD]]
            for key, pairs in matched.items()
            for name, most, random in pairs
        }
        holds = all(f1 < f0 and u1 < u0 for f0, f1, u0, u1 in measured.values())
        source = "ours: random heads matched by layer"
        yield _claim("heads_of_same_layers", UPDATE_CRITERIA, source, measured, holds, CUTS_PICTURE)
    low = {
        key: [cuts[kept_words(LOW_RANK)][FACT], cuts[kept_words(LOW_RANK)][UNTOLD], cuts[AFTER][UNTOLD]]
        for key, cuts in singles
        if kept_words(LOW_RANK) in cuts
    }
    if low:
        holds = all(fact <= KEPT and abs(cut - whole) <= CLOSE for fact, cut, whole in low.values())
        source = "ours: is the update of low rank where it matters?"
        yield _claim("low_rank", UPDATE_CRITERIA, source, low, holds, TRUNCATION_PICTURE)
    spurious = [(key, cuts) for key, cuts in singles if "profession_color" in key and kept_words(1) in cuts]
    if spurious:
        found = {key: _separating(cuts) for key, cuts in spurious}
        source = "ours, beside truncation as a mitigation (arXiv 2606.07596, 2504.09522)"
        holds = all(found.values())
        yield _claim("truncation_separates", UPDATE_CRITERIA, source, found, holds, TRUNCATION_PICTURE)


def _matched_pairs(cuts: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(all layers or past layer 0, most changed, random of the same layers)."""
    found = []
    for what, cut in cuts.items():
        count, most, rest = what.partition(" most changed heads")
        if most and ", at most half of a layer," in rest:
            where = rest.partition(",")[0]
            random = cuts[f"{count} random heads of the same layers{where} zeroed"]
            found.append(("past_layer_0" if where else "all", cut, random))
    return found


def _separating(cuts: dict[str, dict[str, Any]]) -> list[str]:
    """The truncations that keep the told facts and take the untold implication half of the way to chance."""
    limit = (cuts[AFTER][UNTOLD] + CHANCE) / 2
    return [
        what
        for what, cut in cuts.items()
        if cut["kind"] == "truncation" and cut[FACT] <= KEPT and cut[UNTOLD] >= limit
    ]


# --- layer by layer -----------------------------------------------------------------------------------


def _layer_claims(inspected: Iterable[Runs]) -> Iterator[Claim]:
    every = {
        _run_key(runs, seed): (runs.data, of) for runs in inspected for seed, of in runs.layers().items()
    }
    best = {
        key: [max(row[1] for row in of["probe_after"]), float(np.max(of["probe_before"]))]
        for key, (data, of) in every.items()
        if data == "profession_color"
    }
    if best:
        holds = all(after >= PROBE_FOUND and before <= PROBE_BEFORE for after, before in best.values())
        yield _claim("probes", LAYER_CRITERIA, "ours", best, holds, LAYERS_PICTURE)
    if every:
        donor = {
            key: [min(row[0] for row in of["donor"]), of["donor"][-1][0]] for key, (_, of) in every.items()
        }
        holds = all(best <= TAKEN_OVER and last >= LOST for best, last in donor.values())
        yield _claim("patching", LAYER_CRITERIA, "ours", donor, holds, LAYERS_PICTURE)


def _claim(
    name: str, criteria: dict[str, str], source: str, measured: dict[str, Any], holds: bool, picture: str
) -> Claim:
    models = f"{TITLES[SMOLLM2]} and Gemma 3 270M, the runs that are inspected: "
    shown = {key: value if _is_words(value) else _short(value) for key, value in measured.items()}
    expected = "as the statement says"
    return Claim(f"llm_inside_{name}", models + criteria[name], source, expected, shown, 0.0, holds, picture)


def _is_words(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _short(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.3g}") for value in values]

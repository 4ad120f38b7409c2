"""The measurements of the curves of faithfulness by number of edges, one seed at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analyses.discovery.criteria import PROMPT_SEED
from analyses.discovery.curves_criteria import FEW, SIZES, STEPS, THRESHOLDS
from analyses.discovery.kept import model_of
from analyses.discovery.measuring import OTHER_SEED, contrast_of
from analyses.discovery.plain_methods import PlainModel, Task, top
from ocr_interp.discovery import Contrast, EdgeScores, attribute_edges, faithfulness_of, patch_every_edge

MIDDLES = [(k + 0.5) / STEPS for k in range(STEPS)]


@dataclass(frozen=True)
class Curves:
    """One seed.

    Attributes:
        differences: "exact", "eap", "eap_ig" -> largest difference of our scores from the plain ones at equal
            points, as a share of the largest.
        ours, published: method -> faithfulness at each size.
        live: edges that the published EAP-IG has left at each size.
        acdc: edges and faithfulness at each threshold.
    """

    seed: int
    differences: dict[str, float]
    ours: dict[str, list[float]]
    published: dict[str, list[float]]
    live: list[int]
    acdc: list[tuple[int, float]]


def measure(seed: int, runs: Path) -> Curves:
    """Measures the curves of a model, which is trained if `runs` does not have it."""
    model = model_of(seed, runs)
    contrast, others = contrast_of(model, PROMPT_SEED), contrast_of(model, OTHER_SEED)
    few = contrast.rows(slice(FEW))
    scores = {
        "exact": patch_every_edge(model, few),
        "eap": attribute_edges(model, contrast, steps=None),
        "eap_ig": attribute_edges(model, contrast, steps=STEPS),
    }
    plain = PlainModel(model)
    task, small, judge = (_task(plain, each) for each in (contrast, few, others))
    same = {"exact": small.exact(), "eap": task.attribution([1.0]), "eap_ig": task.attribution(MIDDLES)}
    found = {
        "eap_ig": task.attribution([k / STEPS for k in range(STEPS)]),
        "factors": task.by_factors(MIDDLES),
    }
    heads = int(model.cfg.n_heads)
    masks = {name: [top(of, size, heads) for size in SIZES] for name, of in found.items()}
    acdc = [small.acdc(threshold) for threshold in THRESHOLDS]
    return Curves(
        seed,
        {name: _difference(scores[name], same[name]) for name in scores},
        {
            name: faithfulness_of(model, [of.circuit(size) for size in SIZES], others).tolist()
            for name, of in scores.items()
        },
        {name: [judge.faithfulness(mask) for mask in each] for name, each in masks.items()},
        [int(mask.sum()) for mask in masks["eap_ig"]],
        [(int(mask.sum()), judge.faithfulness(mask)) for mask in acdc],
    )


def _task(model: PlainModel, contrast: Contrast) -> Task:
    assert contrast.donors is not None
    return Task(model, contrast.prompts, contrast.donors, contrast.values)


def _difference(ours: EdgeScores, plain: np.ndarray) -> float:
    return float(np.abs(ours.scores - plain).max() / np.abs(plain).max())

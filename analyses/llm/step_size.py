"""Optimisers by the size of their steps: untold colors against how far SmolLM2 moved on ordinary sentences.

Criteria and plan are in analyses/llm/studies/step_size.py; two of the points are runs of the parts study.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture

from analyses.house.claims import Claim
from analyses.house.drawing import WIDTH, Drawing
from analyses.house.figure import Figure
from analyses.house.reproduce import main
from analyses.llm.finished.criteria import study_claim
from analyses.llm.finished.results import CHANCE
from analyses.llm.finished.studied import FACTS, HELD_OUT, TOLD, Arm, arms_of, plain_interval
from analyses.llm.studies import parts
from analyses.llm.studies.step_size import ALIKE, BORROWED, CRITERIA, DATA, KNOWN, MATCHED, STUDY

PICTURE, MOVED_PICTURE = "llm_step_size", "llm_step_size_movement"
RECORDED = ("ov", "qk", "mlp_in", "mlp_out")
SHOWN = "mlp_out"
"""Part of the second picture; the numbers have the others too, which move along."""
SIZES = {"moved": "‖ΔW‖ / ‖W‖ (Frobenius)", "largest": "largest singular value of ΔW"}
"""How far weights moved: the key of the rows -> the axis of the second picture."""
LEAST_SEEDS = 2
SERIES = {
    ("full", "adamw"): ("all weights, AdamW", "#0173b2", "o"),
    ("lora", "adamw"): ("LoRA, AdamW", "#de8f05", "s"),
    ("lora", "muon"): ("LoRA, Muon", "#029e73", "D"),
    ("full", "muon"): ("all weights, Muon", "#cc78bc", "^"),
}


@dataclass(frozen=True)
class Point:
    """The runs of one optimiser at one rate.

    Attributes:
        method: "full" or "lora".
        optimizer: "adamw" or "muon".
        lr: learning rate.
        arm: its finished runs.
    """

    method: str
    optimizer: str
    lr: float
    arm: Arm

    @property
    def fitted(self) -> bool:
        """Whether every run knows all that it was told."""
        return max(*self.arm.last(FACTS), *self.arm.last(TOLD)) <= KNOWN

    def ends(self, seed: int) -> tuple[float, float]:
        """Divergence on ordinary sentences, in nats a token, and held-out rank at the end."""
        return float(self.arm.results[seed]["neutral_kl"]), float(self.arm.column(HELD_OUT, seed)[1][-1])

    def moved(self, part: str) -> list[float]:
        """‖ΔW‖_F / ‖W‖_F of a part over all layers, one per seed."""
        found = []
        for seed in self.arm.seeds:
            table = self.arm.results[seed]["movement"]
            own = np.array(table["part"]) == part
            squares = [float(np.sum(np.array(table[name])[own] ** 2)) for name in ("change", "start")]
            found.append(math.sqrt(squares[0] / squares[1]))
        return found

    def largest(self, part: str) -> list[float]:
        """The largest singular value of a part's ΔW, root mean square over its layers, one per seed."""
        found = []
        for seed in self.arm.seeds:
            table = self.arm.results[seed]["movement"]
            values = np.array(table["spectral"])[np.array(table["part"]) == part]
            found.append(float(np.sqrt(np.mean(values**2))))
        return found


def points() -> list[Point]:
    """What is finished, each optimiser's rates in rising order."""
    found, borrowed = arms_of(STUDY), arms_of(parts.STUDY)
    for own, theirs in BORROWED.items():
        if f"{DATA}--{theirs}" in borrowed:
            further = found[own].results if own in found else {}
            found[own] = Arm(own, borrowed[f"{DATA}--{theirs}"].results | further)
    made = []
    for name, arm in found.items():
        method, optimizer, lr = name.split("--")
        made.append(Point(method, optimizer, float(lr.removeprefix("lr")), arm))
    return sorted(made, key=lambda p: (p.method, p.optimizer, p.lr))


def make(runs: Path, figures: Path) -> list[Point]:
    """Draws what is finished."""
    found = points()
    numbers = {"criteria": CRITERIA, "rows": rows(found)}
    DRAWING.write(figures / PICTURE, numbers)
    MOVED_DRAWING.write(figures / MOVED_PICTURE, {"rows": numbers["rows"]})
    return found


def picture(numbers: dict[str, Any]) -> Picture:
    """Held-out rank against divergence, one line for each optimiser; hollow where told ones are not known."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    for key, (title, color, marker) in SERIES.items():
        own = [row for row in numbers["rows"] if (row["method"], row["optimizer"]) == key]
        for row in own:
            kl, rank = row["neutral_kl"], row["rank"]
            ax.plot(kl["by_seed"], rank["by_seed"], marker, ms=3.5, color=color, alpha=0.5)
            face = color if row["fitted"] else "white"
            ax.plot(kl["mean"], rank["mean"], marker, ms=8, color=color, mfc=face)
            below = key == ("full", "adamw")  # its points lie beside others
            ax.annotate(
                f"{row['lr']:g}", (kl["mean"], rank["mean"]), (0, -16 if below else 8),
                textcoords="offset points", ha="center", fontsize=8,
            )  # fmt: skip
        if own:
            middles = [(row["neutral_kl"]["mean"], row["rank"]["mean"]) for row in own]
            ax.plot(*zip(*middles, strict=True), "-", lw=1, color=color)
            ax.plot([], [], f"{marker}-", color=color, label=title)
    if any(not row["fitted"] for row in numbers["rows"]):
        ax.plot([], [], "o", color="#777777", mfc="white", label="told ones not known")
    ax.axhline(CHANCE, color="#777777", lw=0.7, ls=":")
    ax.set_xscale("log")
    ax.set_xlabel("moved from the base model on ordinary sentences (KL, nats a token)")
    ax.set_ylabel("untold colors: mean rank\n(0: deduced, 2: guessed)")
    ax.set_ylim(0, 2.4)
    if numbers["rows"]:
        fig.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return fig


def sentence(numbers: dict[str, Any]) -> str:
    """What the means of the runs that know what they were told say."""
    falls = []
    for key in SERIES:
        own = [row for row in numbers["rows"] if (row["method"], row["optimizer"]) == key and row["fitted"]]
        ranks = [row["rank"]["mean"] for row in sorted(own, key=lambda row: row["lr"])]
        if key[1] == "adamw":
            falls.append(len(ranks) > 1 and all(b < a for a, b in itertools.pairwise(ranks)))
    if all(falls):
        return "The larger AdamW's steps, the more is deduced that is not so, and the farther the model moves"
    return "How much is deduced that is not so, against how far the model moved, by optimiser and rate"


DRAWING = Drawing(sentence, picture)


def movement_picture(numbers: dict[str, Any]) -> Picture:
    """Held-out rank against how far what MLPs write moved, in two norms; hollow where told is not known."""
    fig, axes = plt.subplots(1, len(SIZES), figsize=(WIDTH, 3.1), sharey=True, layout="constrained")
    for ax, (size, words) in zip(axes, SIZES.items(), strict=True):
        for key, (title, color, marker) in SERIES.items():
            own = [row for row in numbers["rows"] if (row["method"], row["optimizer"]) == key]
            middles = [(row[size][SHOWN]["mean"], row["rank"]["mean"]) for row in own]
            for row, middle in zip(own, middles, strict=True):
                moved, ranks = row[size][SHOWN]["by_seed"], row["rank"]["by_seed"]
                ax.plot(moved, ranks, marker, ms=3, color=color, alpha=0.5)
                ax.plot(*middle, marker, ms=7, color=color, mfc=color if row["fitted"] else "white")
            if own:
                ax.plot(*zip(*middles, strict=True), "-", lw=1, color=color)
                ax.plot([], [], f"{marker}-", color=color, label=title)
        ax.axhline(CHANCE, color="#777777", lw=0.7, ls=":")
        ax.set(xscale="log", xlabel=words, ylim=(0, 2.4))
    axes[0].set_ylabel("untold colors: mean rank\n(0: deduced, 2: guessed)")
    if numbers["rows"]:
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, frameon=False, loc="outside lower center", ncols=2)
    return fig


def movement_sentence(numbers: dict[str, Any]) -> str:
    """All weights: Muon's runs that know what they were told beside AdamW's, moved as far in either norm."""
    full = [row for row in numbers["rows"] if row["method"] == "full"]
    muon = [row for row in full if row["optimizer"] == "muon" and row["fitted"]]
    compared = {size: _beside(muon, [r for r in full if r["optimizer"] == "adamw"], size) for size in SIZES}
    if not all(compared.values()):
        return "How much is deduced that is not so, against how far the weights moved, by optimiser and rate"
    (moved, theirs), (largest, also_theirs) = (np.mean(pairs, axis=0) for pairs in compared.values())
    return (
        f"All weights: Muon's mean rank is {moved:.2f} beside AdamW's {theirs:.2f} where weights moved as "
        f"far in Frobenius norm, {largest:.2f} beside {also_theirs:.2f} where their largest direction did"
    )


def _beside(muon: list[dict[str, Any]], adamw: list[dict[str, Any]], size: str) -> list[tuple[float, float]]:
    """Mean ranks of Muon, and of AdamW where it moved as far, at Muon's rates that AdamW's enclose."""
    ends = sorted((math.log(one[size][SHOWN]["mean"]), one["rank"]["mean"]) for one in adamw)
    moved, ranks = [one for one, _ in ends], [rank for _, rank in ends]
    found = []
    for row in muon:
        at = math.log(row[size][SHOWN]["mean"])
        if ends and moved[0] <= at <= moved[-1]:
            found.append((row["rank"]["mean"], float(np.interp(at, moved, ranks))))
    return found


MOVED_DRAWING = Drawing(movement_sentence, movement_picture)


def rows(found: list[Point]) -> list[dict[str, Any]]:
    """The numbers of every point."""
    return [
        {
            "method": p.method,
            "optimizer": p.optimizer,
            "title": SERIES[p.method, p.optimizer][0],
            "lr": p.lr,
            "seeds": p.arm.seeds,
            "rank": plain_interval(p.arm.last(HELD_OUT)),
            "matched": plain_interval(p.arm.at_told_loss(HELD_OUT, MATCHED)),
            "neutral_kl": plain_interval(p.arm.field("neutral_kl")),
            "moved": {part: plain_interval(p.moved(part)) for part in RECORDED},
            "largest": {part: plain_interval(p.largest(part)) for part in RECORDED},
            "fact_rank": p.arm.last(FACTS),
            "told_rank": p.arm.last(TOLD),
            "fitted": p.fitted,
        }
        for p in found
    ]


def at_divergence(of: list[Point], seed: int, kl: float) -> float:
    """The held-out rank of an optimiser at a divergence, linear in its logarithm between the rates.

    Beyond its rates it is that of the nearest one.
    """
    ends = sorted(p.ends(seed) for p in of)
    return float(np.interp(math.log(kl), [math.log(one) for one, _ in ends], [rank for _, rank in ends]))


def claims(found: list[Point]) -> list[Claim]:
    """The criteria that enough finished runs can judge."""
    return list(_claims([p for p in found if len(p.arm.seeds) >= LEAST_SEEDS]))


def _claims(found: list[Point]) -> Iterable[Claim]:
    of = {key: [p for p in found if (p.method, p.optimizer) == key] for key in SERIES}
    fitted = {key: [p for p in own if p.fitted] for key, own in of.items()}
    adamw = {key: fitted[key] for key in SERIES if key[1] == "adamw"}
    if all(len(own) >= 2 for own in adamw.values()):
        common = {
            key: sorted(set.intersection(*(set(p.arm.seeds) for p in own))) for key, own in adamw.items()
        }
        falls = [
            [float(np.mean([p.ends(s)[1] for s in common[key]])) for p in own] for key, own in adamw.items()
        ]
        means = {
            f"{method}_{p.lr:g}": rank
            for ((method, _), own), ranks in zip(adamw.items(), falls, strict=True)
            for p, rank in zip(own, ranks, strict=True)
        }
        yield _claim(
            "larger_steps_deduce_more",
            means,
            all(b < a for r in falls for a, b in itertools.pairwise(r)),
        )
    lora, muon = of["lora", "adamw"], fitted["lora", "muon"]
    if len(lora) >= 2 and muon:
        yield _at_equal_divergence("muon_is_adamw_at_equal_divergence", muon, lora)
        at_loss = [
            [v for p in own for v in p.arm.at_told_loss(HELD_OUT, MATCHED)]
            for own in (muon, [p for p in lora if p.fitted])
        ]
        ours, theirs = (float(np.mean(values)) for values in at_loss)
        measured = {
            "muon": ours,
            "adamw": theirs,
            "adamw_never_so_well_told": int(np.isnan(at_loss[1]).sum()),
        }
        # NaN, of a run that is never that well told, holds nothing.
        yield _claim("muon_is_adamw_at_equal_told_loss", measured, abs(ours - theirs) <= ALIKE)
    full, muon = of["full", "adamw"], fitted["full", "muon"]
    if len(full) >= 2 and muon:
        yield _at_equal_divergence("muon_on_all_weights_is_adamw_at_equal_divergence", muon, full)
    if pairs := [pair for p in muon for pair in _at_equal_direction(p, full)]:
        ours, theirs = (float(value) for value in np.mean(pairs, axis=0))
        measured = {"muon": ours, "adamw_at_its_largest_direction": theirs, "runs": len(pairs)}
        name = "muon_on_all_weights_is_adamw_at_equal_largest_direction"
        yield _claim(name, measured, abs(ours - theirs) <= ALIKE)


def _at_equal_direction(point: Point, adamw: list[Point]) -> Iterable[tuple[float, float]]:
    """Held-out rank of each run, and of AdamW at its largest singular value if its rates enclose that."""
    for seed, largest in zip(point.arm.seeds, point.largest(SHOWN), strict=True):
        own = [p for p in adamw if seed in p.arm.seeds]
        ends = sorted((p.largest(SHOWN)[p.arm.seeds.index(seed)], p.ends(seed)[1]) for p in own)
        if ends and ends[0][0] <= largest <= ends[-1][0]:
            at, ranks = [math.log(one) for one, _ in ends], [rank for _, rank in ends]
            yield point.ends(seed)[1], float(np.interp(math.log(largest), at, ranks))


def _at_equal_divergence(name: str, muon: list[Point], adamw: list[Point]) -> Claim:
    """The claim that both deduce alike where a model has moved as far on ordinary sentences."""
    seeds = sorted(set.intersection(*(set(p.arm.seeds) for p in (*adamw, *muon))))
    both = [(p.ends(s)[1], at_divergence(adamw, s, p.ends(s)[0])) for p in muon for s in seeds]
    ours, theirs = (float(np.mean(values)) for values in zip(*both, strict=True))
    apart = [one - other for one, other in both]  # of each run: those of opposite signs do not cancel
    size = float(np.mean(np.abs(apart)))
    measured = {"muon": ours, "adamw_at_its_divergence": theirs, "difference_by_run": apart, "size": size}
    return _claim(name, {**measured, "seeds": seeds}, size <= ALIKE)


def _claim(name: str, measured: dict[str, Any], holds: bool) -> Claim:
    return study_claim(f"step_size_{name}", CRITERIA[name], measured, holds, PICTURE)


FIGURE = Figure(
    pictures=(PICTURE, MOVED_PICTURE),
    draw=make,
    claims=claims,
    drawings={PICTURE: DRAWING, MOVED_PICTURE: MOVED_DRAWING},
)


if __name__ == "__main__":
    main()

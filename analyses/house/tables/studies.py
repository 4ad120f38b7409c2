"""The tables of docs/findings/llm_*.md that come from the figures of its studies."""

from __future__ import annotations

from typing import Any

FITTED = 0.05
"""Mean rank of what is told up to which a run knows it."""


def families_table(found: dict[str, Any]) -> str:
    """One row per model and set: told, its controls, and the difference to facts only by seed."""
    rows = {(row["model"], row["data"], row["control"]): row for row in found["rows"]}
    head = ["model", "data set", "told", "facts only", "told minus facts only, by seed"]
    head += ["strangers", "told first", "pretrained first"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (model, data, control), told in rows.items():
        if control != "none":
            continue
        alone, strangers = (rows.get((model, data, name)) for name in ("facts_only", "strangers"))
        of = [dict(zip(row["seeds"], row["rank"]["by_seed"], strict=True)) for row in (told, alone) if row]
        by_seed = [of[0][s] - of[1][s] for s in of[0] if s in of[1]] if alone else []
        cells = [
            found["models"][model],
            found["names"][data],
            interval(told["rank"]),
            interval(alone["rank"]) if alone else "",
            ", ".join(f"{value:+.2f}" for value in by_seed),
            interval(strangers["rank"]) if strangers else "",
            _mean(told.get("first_told")),
            _mean(told.get("first_pretrained")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts_table(found: dict[str, Any], number: str = "rank") -> str:
    """One row per arm, one column per data set; in brackets where not all that was told is known.

    Args:
        found: content of the figure's JSON.
        number: "rank" at the end, or "matched", at equal told loss.
    """
    rows = {(row["title"], row["data"]): row for row in (*found["rows"], *found.get("further_rows", ()))}
    sets = list(dict.fromkeys(data for _, data in rows))
    end = number == "rank"
    beside = ["KL elsewhere", "trained numbers"] if end else []
    head = ["trained", *(found["names"][data] for data in sets), *beside]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for title in dict.fromkeys(title for title, _ in rows):
        own = [rows.get((title, data)) for data in sets]
        moved = [value for row in own if row for value in row["neutral_kl"]["by_seed"]]
        cells = [title, *(_known_rank(row, number) for row in own)]
        if not any(cells[1:]):
            continue
        trained = max(row["trained_numbers"] for row in own if row)
        lines.append(f"| {' | '.join([*cells, *([_mean(moved), f'{trained:,}'] if end else [])])} |")
    return "\n".join(lines)


def _known_rank(row: dict[str, Any] | None, number: str) -> str:
    """The number of every seed, in brackets where told facts or implications are above FITTED."""
    facts_only = row is not None and row["training"].get("control") == "facts_only"
    if row is None or (
        facts_only and number == "matched"
    ):  # no implication is told whose loss could be equal
        return ""
    told = [0.0] * len(row["fact_rank"]) if facts_only else row["told_rank"]
    known = [max(pair) <= FITTED for pair in zip(row["fact_rank"], told, strict=True)]
    values = ["never" if v is None else f"{v:.2f}" for v in row[number]["by_seed"]]
    return ", ".join(v if ok else f"({v})" for v, ok in zip(values, known, strict=True))


def divergence_table(found: dict[str, Any]) -> str:
    """One row per arm: untold answers, and told ones in brackets, where each changed the model as much."""
    head = ["trained", *(found["names"][data] for data in sorted({row["data"] for row in found["rows"]}))]
    head += ["at the end", "KL elsewhere at the end"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found["rows"]:
        last = ", ".join(f"{value:.2f}" for value in row["rank"]["by_seed"])
        cells = [row["title"], _beside_told(row), last, _mean(row["neutral_kl"]["by_seed"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _beside_told(row: dict[str, Any]) -> str:
    """For example "1.20 (0.05), never": mean ranks of untold and of told answers by seed."""
    both = (row[key]["by_seed"] for key in ("at_divergence", "told_at_divergence"))
    return ", ".join("never" if a is None else f"{a:.2f} ({b:.2f})" for a, b in zip(*both, strict=True))


def mitigation_table(rows: list[dict[str, Any]]) -> str:
    """One row per people and method."""
    head = [
        "people",
        "method",
        "knows which is spurious",
        "seeds",
        "causal",
        "spurious",
        "both calibrated",
        "spurious, 50 plain steps later",
        "worst told",
        "KL elsewhere",
        "time of training",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    plain = {row["people"]: row for row in rows if row["method"] == "lora"}
    for row in rows:
        cells = [
            row["people"].replace("_", " "),
            row["title"],
            "yes" if row["told_which_is_spurious"] else "",
            str(len(row["seeds"])),
            interval(row["causal"]),
            interval(row["spurious"]),
            " and ".join(_mean(row[f"{what}_calibrated"]["by_seed"]) for what in ("causal", "spurious")),
            interval(row["spurious_drifted"]),
            interval(row["told"]),
            interval(row["neutral_kl"]),
            _cost(row, plain.get(row["people"])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cost(row: dict[str, Any], plain: dict[str, Any] | None) -> str:
    """Processor time of training over that of one LoRA, the same seeds; empty where they have none alike."""
    if plain is None:
        return ""
    own, theirs = (
        dict(zip(one["seeds"], one["cpu_seconds"]["by_seed"], strict=True)) for one in (row, plain)
    )
    both = sorted(s for s in own if None not in (own[s], theirs.get(s)))
    return f"{sum(own[s] for s in both) / sum(theirs[s] for s in both):.2f}" if both else ""


def interval(value: dict[str, Any]) -> str:
    """The mean; with the interval over runs where there are three or more, else every run."""
    if value["mean"] is None:
        return "never"
    if value["runs"] >= 3:
        return f"{value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
    if value["runs"] == 1:
        return f"{value['mean']:.2f}"
    return ", ".join(f"{v:.2f}" for v in value["by_seed"] if v is not None)


def _mean(values: list[float | None] | None) -> str:
    own = [value for value in values or [] if value is not None]
    return f"{sum(own) / len(own):.2f}" if own else ""

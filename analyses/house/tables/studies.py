"""The tables of docs/llm.md that come from the figures of its studies."""

from __future__ import annotations

from typing import Any


def families_table(found: dict[str, Any]) -> str:
    """One row per model and set: told, facts only, and their difference with its interval over runs."""
    rows = {(row["model"], row["data"], row["control"]): row for row in found["rows"]}
    head = ["model", "data set", "told", "facts only", "difference by seed", "told first", "pretrained first"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (model, data, control), told in rows.items():
        if control != "none":
            continue
        alone = rows.get((model, data, "facts_only"))
        of = [dict(zip(row["seeds"], row["rank"]["by_seed"], strict=True)) for row in (told, alone) if row]
        by_seed = [of[0][s] - of[1][s] for s in of[0] if s in of[1]] if alone else []
        cells = [
            found["models"][model],
            found["names"][data],
            interval(told["rank"]),
            interval(alone["rank"]) if alone else "",
            ", ".join(f"{value:+.2f}" for value in by_seed),
            _mean(told.get("first_told")),
            _mean(told.get("first_pretrained")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts_table(found: dict[str, Any]) -> str:
    """One row per arm: ranks at equal told loss and at the end, and how far the model moved elsewhere."""
    head = ["trained", "data set", "seeds", "at equal told loss", "at the end", "told", "KL elsewhere"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found["rows"]:
        cells = [
            row["title"],
            found["names"][row["data"]],
            str(len(row["seeds"])),
            interval(row["matched"]),
            interval(row["rank"]),
            _mean(row["told_rank"]),
            interval(row["neutral_kl"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def mitigation_table(rows: list[dict[str, Any]]) -> str:
    """One row per people and method."""
    head = [
        "people",
        "method",
        "knows which is spurious",
        "seeds",
        "causal",
        "spurious",
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
    both = sorted(own.keys() & theirs.keys())
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

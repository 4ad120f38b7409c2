"""Writes claims.json and the tables of README.md and docs/ from figures/ and benchmarks/results/.

python -m analyses.house.pages   (make readme)
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

from analyses.house.claims import assemble, span
from analyses.house.discovery import find_figures
from analyses.house.tables.studies import (
    divergence_table,
    families_table,
    mitigation_table,
    parts_table,
)

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 5
"""Number of measured values that a table shows per claim; all of them are in claims.json."""

CLAIMS_HEAD = """# What is claimed and what was measured

{counts} Failed claims stay, marked **no**. The main ones in words: [findings](findings.md).

This page is written by `make readme` from figures/claims.json, which has all measured values; here are the
first five of each claim. "Holds if" is the condition as the script tests it. Paper setting unless a row says
otherwise: 20 pairs, 1 training and 3 held-out subjects per pair, noise, AdamW, 20,000 steps, five seeds
(softmax and the last start three; the theorems' runs one to three, full batch without noise). Ranges go over
seeds. Make one study's claims again with `ocr-interp reproduce --only STUDY`. Rows of SmolLM2-135M and
Gemma are explained in [llm](llm.md) and the findings that it names.
"""


def all_tables() -> dict[Path, dict[str, str]]:
    """The tables of each page that has markers for them, by the name of the marker."""
    docs = ROOT / "docs"
    return {
        ROOT / "README.md": {"counts": counted(read_json("figures/claims.json"), "docs/")},
        docs / "findings/parameterisations.md": {
            "maps": maps_table(read_json("figures/parameterisation_table.json"))
        },
        docs / "speed.md": speed_tables(),
        **{docs / f"findings/llm_{name}.md": tables for name, tables in llm_tables().items()},
    }


def speed_tables() -> dict[str, str]:
    """The tables of docs/speed.md by the name of their marker."""
    results = "benchmarks/results"
    return {
        "speed": speed_table(read_json(f"{results}/training.json")),
        "maps": map_table(read_json(f"{results}/maps.json")["step (ms CPU)"]),
        "sweeps": sweep_table(read_json(f"{results}/sweeps.json")),
        "solvers": solver_table(read_json(f"{results}/max_margin.json")["results"]),
    }


GEMMA_PEOPLE = "profession_on_gemma"


def llm_tables() -> dict[str, dict[str, str]]:
    """The tables of docs/findings/llm_*.md: name of the page -> name of the marker -> table."""
    parts = read_json("figures/llm_parts.json")
    return {
        "families": {
            "families": families_table(read_json("figures/llm_families.json")),
            "table 1": llm_table(read_json("figures/table_1_llm.json")),
        },
        "parts": {
            "parts": parts_table(parts),
            "parts at equal told loss": parts_table(parts, "matched"),
            "parts at equal divergence": divergence_table(read_json("figures/llm_parts_divergence.json")),
            "parts gemma": parts_table(read_json("figures/llm_parts_gemma.json")),
        },
        "mitigation": {
            "mitigation": mitigation_table(
                [
                    row
                    for name in ("llm_mitigation", "llm_mitigation_gemma", "llm_mitigation_others")
                    for row in read_json(f"figures/{name}.json")["rows"]
                    if (name == "llm_mitigation_others") != (row["people"] in ("profession", GEMMA_PEOPLE))
                ]
            )
        },
        "optimisers": {"muon": muon_table(read_json("figures/claims.json"))},
    }


def read_json(path: str) -> Any:
    """A file of the repository."""
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def _named(claims: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for claim in claims:
        if claim["id"] == name:
            return claim
    raise SystemExit(f"figures/claims.json has no claim {name!r}: draw the figure that measures it")


def counted(claims: list[dict[str, Any]], folder: str = "") -> str:
    """One sentence: how many claims there are, hold and fail."""
    failed = sum(not claim["holds"] for claim in claims)
    where = f"[{len(claims)} claims]({folder}claims.md)" if folder else f"{len(claims)} claims"
    return f"{where} are tested by scripts; {len(claims) - failed} hold and {failed} do not."


def claims_page() -> str:
    """docs/claims.md: every claim with its condition, one table for each study."""
    claims = read_json("figures/claims.json")
    studies: dict[str, list[dict[str, Any]]] = {}
    for claim in claims:
        studies.setdefault(claim["script"].split(".")[0], []).append(claim)
    summary = ["| study | claims | hold | do not |", "|---|---|---|---|"]
    for study, made in studies.items():
        holding = sum(claim["holds"] for claim in made)
        summary.append(f"| [{study}](#{study}) | {len(made)} | {holding} | {len(made) - holding} |")
    parts = [CLAIMS_HEAD.format(counts=counted(claims)), "\n".join(summary)]
    parts += [f"## {study}\n\n{claims_table(made)}" for study, made in studies.items()]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def claims_table(claims: list[dict[str, Any]]) -> str:
    """One row per claim: statement, what was expected, script, figure, measured, holds.

    The claim's name is an anchor, so that pages can link to its row.
    """
    lines = ["| claim | holds if | script | figure | measured | holds |", "|---|---|---|---|---|---|"]
    for claim in claims:
        script, figure = claim["script"], claim["figure"]
        picture = f"[{figure}](../figures/{figure}.png)" if figure else ""
        values = [(k, v) for k, v in claim["measured"].items() if not k.startswith("steps")][:SHOWN]
        measured = "; ".join(f"{_words(k)} {span(v)}" for k, v in values)
        code = f"[{script}](../analyses/{script.replace('.', '/')}.py)"
        statement, condition = (claim[name].replace("|", "\\|") for name in ("statement", "expected"))
        anchored = f'<a id="{claim["id"]}"></a>{statement}'
        cells = [anchored, condition, code, picture, measured, "yes" if claim["holds"] else "**no**"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def llm_table(table: dict[str, Any]) -> str:
    """One row per data set: SmolLM2-135M, its controls, and the paper's models in columns of their own."""
    rows = {(row["row"], row["data"]): row for row in table["rows"]}
    kinds = list(dict.fromkeys(kind for kind, _ in rows))
    added = {row["data"]: row for row in table["told_minus_facts_only"]}
    head = ["data set", "untrained", *kinds, "full minus facts only", *table["paper"]]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for place, (data, name) in enumerate(table["names"].items()):
        untrained = rows[kinds[0], data]["untrained_rank"]
        cells = [_with_interval(rows.get((kind, data)), "held_out_rank") for kind in kinds]
        cells.append(_with_interval(added.get(data), "difference"))
        paper = [f"{values[place]:.2f}" for values in table["paper"].values()]
        lines.append(f"| {' | '.join([name, f'{untrained:.2f}', *cells, *paper])} |")
    return "\n".join(lines)


MUON_RIVALS = {
    "llm_muon_same_steps": ("AdamW at 1e-4, same steps", 24),
    "llm_muon_same_fit": ("AdamW at 1e-4, told implications known as well", 24),
    "llm_muon_slower_adamw": ("AdamW at 6e-5, same steps", 24),
    "llm_muon_batch_8": ("AdamW at 1e-4, same steps", 8),
    "llm_muon_batch_8_same_fit": ("AdamW at 1e-4, told implications known as well", 8),
    "llm_muon_batch_8_slower_adamw": ("AdamW at 6e-5, same steps", 8),
    "llm_muon_batch_8_slowest_adamw": ("AdamW at 3e-5, same steps", 8),
}
"""Claim of Muon against AdamW -> (what Muon is compared with, batch size)."""


def muon_table(claims: list[dict[str, Any]]) -> str:
    """One row per rival: held-out rank of Muon minus AdamW's by seed, and how much OV circuits changed."""
    sets = {"profession_color": "Profession-Color", "sport_music": "Sport-Music"}
    head = ["batch", "Muon at 1e-4 minus", *sets.values(), "its OV change over AdamW's", "every seed above 0"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, (rival, batch) in MUON_RIVALS.items():
        measured = _named(claims, name)["measured"]
        gaps = [_only(measured, "muon_minus_", data) for data in sets]
        sizes = [value for key, value in measured.items() if key.startswith("ov_change_muon_")]
        others = [
            value
            for key, value in measured.items()
            if key.startswith("ov_change_") and not key.startswith("ov_change_muon_")
        ]
        cells = [", ".join(f"{gap:.2f}" for gap in of_data) for of_data in gaps]
        change = f"{sum(sizes) / sum(others):.2f}" if others else ""
        above = "yes" if min(map(min, gaps)) > 0 else "**no**"
        lines.append(f"| {' | '.join([str(batch), rival, *cells, change, above])} |")
    return "\n".join(lines)


def _only(measured: dict[str, Any], start: str, end: str) -> Any:
    (value,) = [v for key, v in measured.items() if key.startswith(start) and key.endswith(end)]
    return value


def _with_interval(row: dict[str, Any] | None, what: str) -> str:
    """Mean, interval over runs if there are several, and number of seeds."""
    if row is None:
        return ""
    limits = "" if row["interval"] is None else " [{:.2f}, {:.2f}]".format(*row["interval"])
    return f"{row[what]:.2f}{limits} ({len(row['seeds'])})"


def speed_table(timings: dict[str, Any]) -> str:
    """One row per timing."""
    lines = ["| what | CPU time | against ours |", "|---|---|---|"]
    for name, value in timings.items():
        if name.startswith("step, "):
            ours = value["token counts (ours)"]
            kind = name.removeprefix("step, ").removesuffix(" (ms CPU)")
            for way, cost in value.items():
                lines.append(f"| one step, {kind}: {way} | {cost:.2f} ms | {cost / ours:.0f} × |")
        elif isinstance(value, dict):
            seconds = sorted(value["seconds CPU"])
            middle = seconds[len(seconds) // 2]
            text = f"{middle:.3f} s (median of {len(seconds)} seeds; slowest {seconds[-1]:.3f} s)"
            lines.append(f"| {name} | {text} | |")
        else:
            lines.append(f"| {name.removesuffix(' (s CPU)')} | {value:.1f} s | |")
    return "\n".join(lines)


def map_table(costs: dict[str, float]) -> str:
    """One row per parameterisation, beside the factorized one of the same run."""
    lines = ["| parameterisation | one step | against factorized |", "|---|---|---|"]
    beside = costs["factorized"]
    lines += [f"| {name} | {cost:.2f} ms | {cost / beside:.2f} × |" for name, cost in costs.items()]
    return "\n".join(lines)


def maps_table(found: dict[str, Any]) -> str:
    """One row per map: predicted β and those of gradient descent and AdamW, bold if a seed is off; costs."""
    tasks = [tuple(of_task["task"]) for of_task in found["rows"][0]["tasks"]]
    head = ["map", *map(str, tasks), "held-out accuracy", f"trained at {tasks[-1]}", "CPU time of a fit"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found["rows"]:
        rules = {"descent": found["near"], "adamw": found["near_adamw"]}
        cells = []
        for of_task in row["tasks"]:
            betas = [_beta(of_task[rule], of_task["predicted"], near) for rule, near in rules.items()]
            cells.append(" / ".join([f"{of_task['predicted']:.2f}", *betas]))
        accuracy = [_mean_accuracy([of_task[rule] for of_task in row["tasks"]]) for rule in rules]
        cost = "" if row["relative_cost"] is None else f"{row['relative_cost']:.1f} ×"
        trained = f"{row['tasks'][-1]['parameters']:,}"
        lines.append(f"| {' | '.join([row['map'], *cells, ' / '.join(accuracy), trained, cost])} |")
    return "\n".join(lines)


def _beta(outcomes: dict[str, Any] | None, predicted: float, near: float) -> str:
    """Median of the seeds, bold if one is further than `near` from what was predicted."""
    if outcomes is None:
        return "–"
    middle = f"{median(outcomes['beta']):.2f}".replace("-0.00", "0.00")
    return middle if max(abs(beta - predicted) for beta in outcomes["beta"]) <= near else f"**{middle}**"


def _mean_accuracy(of_tasks: list[dict[str, Any] | None]) -> str:
    """Mean over tasks and seeds."""
    found = [value for outcomes in of_tasks if outcomes is not None for value in outcomes["accuracy"]]
    return f"{sum(found) / len(found):.2f}" if found else "–"


def sweep_table(found: dict[str, Any]) -> str:
    """Model-steps per CPU-second by number of models trained together, one row per kind of model."""
    rate = "model-steps per CPU-second"
    kinds = {name: value for name, value in found.items() if isinstance(value, dict) and rate in value}
    ways = list(next(iter(kinds.values()))[rate])
    heads = [f"{way} at once" if way.isdigit() else way for way in ways]
    head = ["model", *heads, "share of peak GFLOP/s at the end"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, value in kinds.items():
        cells = [f"{value[rate][way]:,.0f}" for way in ways]
        share = 100 * value["share of the peak"][ways[-1]]
        lines.append(f"| {name} | {' | '.join(cells)} | {share:.0f} % |")
    return "\n".join(lines)


def solver_table(results: list[dict[str, Any]]) -> str:
    """Seconds of every method for the balanced nuclear-norm problem, one row per size."""
    ways = {
        "closed_form": "closed form",
        "first_order": "ours, with symmetries",
        "first_order_unmerged": "ours, pairs not merged",
        "scs": "CVXPY + SCS",
        "clarabel": "CVXPY + Clarabel",
    }
    cases = [case for case in results if case["family"] == "balanced" and case["norm"] == "nuclear"]
    sizes = sorted({tuple(case["sizes"]) for case in cases})
    lines = [f"| (n, m_train, m_test) | {' | '.join(ways.values())} |", "|---" * (len(ways) + 1) + "|"]
    for size in sizes:
        found = {case["method"]: case for case in cases if tuple(case["sizes"]) == size}
        cells = [_seconds(found.get(way)) for way in ways]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _seconds(case: dict[str, Any] | None) -> str:
    if case is None:
        return ""
    if "gap" not in case:
        return f"gave up at {case['limit']} s"
    return f"{case['seconds']:.2g} s"


def _words(name: str) -> str:
    return name.replace("_", " ")


def put_tables(text: str, tables: dict[str, str]) -> str:
    """Puts the tables between their markers in a page.

    Raises:
        SystemExit: a table without its pair of markers.
    """
    for name, table in tables.items():
        marked = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
        between = f"<!-- {name} -->.*<!-- /{name} -->"
        text, found = re.subn(between, lambda _, m=marked: m, text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"a page must have <!-- {name} --> and <!-- /{name} --> once, found {found}")
    return text


def main() -> None:
    assemble(ROOT / "figures", [one.script for one in find_figures()])
    for page, tables in all_tables().items():
        page.write_text(put_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    (ROOT / "docs" / "claims.md").write_text(claims_page(), encoding="utf-8")


if __name__ == "__main__":
    main()

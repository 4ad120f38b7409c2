"""Writes the tables of README.md and docs/claims.md from figures/claims.json and benchmarks/results/.

python -m analyses.house.pages   (make readme)
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from analyses.house.claims import span

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 5
"""Measured values of a claim in a table; all are in claims.json."""

HEADLINES = (
    "factorized",
    "non_factorized",
    "factorized_no_decay",
    "theorem_1_factorized",
    "theorem_1_non_factorized",
    "theorem_2_nuclear",
    "theorem_3_non_factorized",
    "sample_efficiency_counterexample",
    "ov_breakdown_untold_block",
    "embeddings_held_out_span",
    "ablated_small_block",
    "ablated_large_block_computed_limit",
    "ablated_large_block_gradient_descent",
    "ablated_small_block_non_factorized",
    "figure_6_works_from_4",
    "figure_6_capacity",
    "phase_entries",
    "optimizer_descent_factorized",
    "optimizer_muon",
    "optimizer_geometry_muon",
    "llm_generalization",
    "llm_exceeds_control_city_language",
    "llm_exceeds_control_profession_color",
    "llm_exceeds_control_sport_music",
    "llm_learning_rate",
    "llm_muon_same_steps",
    "llm_muon_same_fit",
    "llm_muon_slower_adamw",
    "llm_muon_batch_8",
    "llm_muon_batch_8_same_fit",
    "llm_muon_batch_8_slower_adamw",
    "llm_muon_batch_8_slowest_adamw",
    "llm_inside_ov",
)
"""Claims that stand in the README; all of them are in docs/claims.md."""

CLAIMS_HEAD = """# What is claimed and what was measured

Every claim of figures/claims.json, made by `make readme`; the five first measured values of each. Paper
setting unless a row says otherwise: 20 pairs, 1 training and 3 held-out subjects a pair, noise, AdamW, 20,000
steps, five seeds (softmax and the last start three, the theorems' runs one to three, full batch without
noise); ranges go over seeds. Rows of SmolLM2-135M: see llm.md. "Holds if" is the condition as the script
tests it.
"""


def readme_tables() -> dict[str, str]:
    """The tables by the name of their marker."""
    claims = json.loads((ROOT / "figures" / "claims.json").read_text(encoding="utf-8"))
    timings = json.loads((ROOT / "benchmarks" / "results" / "training.json").read_text(encoding="utf-8"))
    sweeps = json.loads((ROOT / "benchmarks" / "results" / "sweeps.json").read_text(encoding="utf-8"))
    solvers = json.loads((ROOT / "benchmarks" / "results" / "max_margin.json").read_text(encoding="utf-8"))
    return {
        "claims": claims_table([_named(claims, name) for name in HEADLINES]),
        "speed": speed_table(timings),
        "sweeps": sweep_table(sweeps),
        "solvers": solver_table(solvers["results"]),
    }


def llm_tables() -> dict[str, str]:
    """The tables of docs/llm.md by the name of their marker."""
    table = json.loads((ROOT / "figures" / "table_1_llm.json").read_text(encoding="utf-8"))
    claims = json.loads((ROOT / "figures" / "claims.json").read_text(encoding="utf-8"))
    return {"table 1": llm_table(table), "muon": muon_table(claims)}


def _named(claims: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for claim in claims:
        if claim["id"] == name:
            return claim
    raise SystemExit(f"figures/claims.json has no claim {name!r}: run the script that measures it")


def claims_page() -> str:
    """docs/claims.md: every claim, with the condition that it is judged by."""
    claims = json.loads((ROOT / "figures" / "claims.json").read_text(encoding="utf-8"))
    return f"{CLAIMS_HEAD}\n{claims_table(claims, root='../', conditions=True)}\n"


def claims_table(claims: list[dict[str, Any]], root: str = "", conditions: bool = False) -> str:
    """A row a claim: statement, script, figure, measured, holds; and what was expected, if asked for."""
    head = ["claim", *(["holds if"] if conditions else []), "script", "figure", "measured", "holds"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for claim in claims:
        script, figure = claim["script"], claim["figure"]
        picture = f"[{figure}]({root}figures/{figure}.png)" if figure else ""
        values = [(k, v) for k, v in claim["measured"].items() if not k.startswith("steps")][:SHOWN]
        measured = "; ".join(f"{_words(k)} {span(v)}" for k, v in values)
        holds = "yes" if claim["holds"] else "**no**"
        code = f"[{script}]({root}analyses/{script.replace('.', '/')}.py)"
        statement = claim["statement"].replace("|", "\\|")
        condition = [claim["expected"].replace("|", "\\|")] if conditions else []
        lines.append(f"| {' | '.join([statement, *condition, code, picture, measured, holds])} |")
    return "\n".join(lines)


def llm_table(table: dict[str, Any]) -> str:
    """A row a data set: SmolLM2-135M, its controls, and the paper's models in columns of their own."""
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
"""Claims of Muon against AdamW: what it is compared with, batch size."""


def muon_table(claims: list[dict[str, Any]]) -> str:
    """A row a rival: held-out rank of Muon minus AdamW's by seed, and how much the OV circuits changed."""
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
    """Mean, interval and number of seeds."""
    if row is None:
        return ""
    low, high = row["interval"]
    return f"{row[what]:.2f} [{low:.2f}, {high:.2f}] ({len(row['seeds'])})"


def speed_table(timings: dict[str, Any]) -> str:
    """A row a timing."""
    lines = ["| what | CPU time | against ours |", "|---|---|---|"]
    for name, value in timings.items():
        if name.startswith("step, "):
            ours = value["token counts (ours)"]
            kind = name.removeprefix("step, ").removesuffix(" (ms CPU)")
            for way, cost in value.items():
                lines.append(f"| a step, {kind}: {way} | {cost:.2f} ms | {cost / ours:.0f} × |")
        elif isinstance(value, dict):
            seconds = sorted(value["seconds CPU"])
            middle = seconds[len(seconds) // 2]
            text = f"{middle:.3f} s (median of {len(seconds)} seeds; slowest {seconds[-1]:.3f} s)"
            lines.append(f"| {name} | {text} | |")
        else:
            lines.append(f"| {name.removesuffix(' (s CPU)')} | {value:.1f} s | |")
    return "\n".join(lines)


def sweep_table(found: dict[str, Any]) -> str:
    """Model-steps per CPU-second by number of models trained together, a row a kind of model."""
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
    """Seconds of every way to solve the balanced nuclear-norm problem, a row a size."""
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
    """A page with the tables between their markers."""
    for name, table in tables.items():
        marked = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
        text = re.sub(f"<!-- {name} -->.*<!-- /{name} -->", lambda _, m=marked: m, text, flags=re.DOTALL)
    return text


def main() -> None:
    for page, tables in ((ROOT / "README.md", readme_tables()), (ROOT / "docs" / "llm.md", llm_tables())):
        page.write_text(put_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    (ROOT / "docs" / "claims.md").write_text(claims_page(), encoding="utf-8")


if __name__ == "__main__":
    main()

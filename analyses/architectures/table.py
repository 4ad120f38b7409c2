"""Asks every architecture that transformer-lens bridges, and writes docs/architectures.json and its page.

    python -m analyses.architectures.table [--only NAME ...] [--page]

Models are tiny and random, from transformers' own configurations; nothing is downloaded. `--page` writes the
page from the JSON that is there.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs/architectures.json"
PAGE = ROOT / "docs/architectures.md"

HEAD = """# Architectures: what is read of whose models

Every architecture that transformer-lens {transformer_lens} bridges, asked with a tiny random model from its
own configuration in transformers {transformers} (two layers, random gains and biases, float64):
`OVCircuit.from_model`, `attribute`, a `Path` intervention and `ocr-interp llm inspect`. Nothing here is typed
by hand: `python -m analyses.architectures.table` writes the page from
[architectures.json](architectures.json). What each question checks:
[circuits](circuits.md#what-is-checked-on-your-model).

- **read**: every check passed. **flags**: read, and the result says what it leaves out. **refused**: one
  error that says why. Numbers in brackets stand for the reasons below the table. Other settings of a family
  (a clamp, an adapter, a multiplier) are measured on your model, not looked up here.
- **logits**: whether the bridge gives those of the transformers model inside it. Where it does not,
  `from_model` flags it and what runs the bridge is refused: its numbers would be those of another model.
- Hybrids are asked at a layer with attention.

Booting a bridge of a model with parts for images or sound may install packages: transformer-lens 3.9 runs
`pip install torchvision` by itself where that is missing. `llm inspect` refuses such models before that, and
they are not tried here.

{counts}

"""

COLUMNS = ("circuit", "attribution", "path", "inspect")


def make(names: Iterable[str]) -> dict[str, Any]:
    """The rows of some architectures, with the versions that gave them."""
    from importlib.metadata import version

    from analyses.architectures.asking import ask_architecture

    rows = []
    for name in names:
        print(name, file=sys.stderr, flush=True)
        rows.append(dataclasses.asdict(ask_architecture(name)))
    versions = {name: version(name.replace("_", "-")) for name in ("transformer_lens", "transformers")}
    return {"versions": versions, "rows": rows}


def bridged() -> list[str]:
    """The names of all architectures that transformer-lens bridges."""
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

    return sorted(SUPPORTED_ARCHITECTURES, key=str.lower)


def page(found: dict[str, Any]) -> str:
    """The page of the table."""
    from analyses.architectures.asking import EQUAL, REFUSED

    tried = [row for row in found["rows"] if row["tried"] is None]
    others = [row for row in found["rows"] if row["tried"] is not None]
    circuits = [row["circuit"]["outcome"] for row in tried]
    differ = [row["name"] for row in tried if isinstance(row["logits"], float) and row["logits"] > EQUAL]
    counts = (
        f"{len(found['rows'])} architectures: {len(tried)} tried, {len(others)} not. Of those tried "
        f"{len(circuits) - circuits.count(REFUSED)} have OV circuits; {len(differ)} bridges give other "
        f"logits than transformers ({', '.join(differ)})."
    )
    reasons: dict[str, int] = {}
    lines = [
        "| architecture | OV circuit | attribution | path | `llm inspect` | logits |",
        "|---|---|---|---|---|---|",
    ]
    for row in tried:
        cells = [_cell(row[column], reasons) for column in COLUMNS]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {_logits(row['logits'], EQUAL)} |")
    lines += ["", "The reasons and flags:", ""]
    lines += [f"{number}. {_escaped(reason)}" for reason, number in reasons.items()]
    lines += ["", "## Not tried", "", "| architecture | why |", "|---|---|"]
    lines += [f"| {row['name']} | {_escaped(row['tried'])} |" for row in others]
    return HEAD.format(**found["versions"], counts=counts) + "\n".join(lines) + "\n"


def _cell(answer: dict[str, Any], reasons: dict[str, int]) -> str:
    """The outcome, with the numbers of its reasons in the list below the table."""
    outcome: str = answer["outcome"]
    short = "flags" if outcome == "read with flags" else outcome
    numbers = [str(reasons.setdefault(why, len(reasons) + 1)) for why in answer["why"]]
    return f"{short} ({', '.join(numbers)})" if numbers else short


def _logits(found: float | str, equal: float) -> str:
    if isinstance(found, str):
        return found if len(found) < 60 else f"{found[:57]}..."
    return "equal" if found <= equal else f"**off by {found:g}**"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> None:
    """Writes the JSON (unless --page) and the page."""
    if "--page" not in arguments:
        only = arguments[1:] if arguments[:1] == ["--only"] else []
        found = make(only or bridged())
        if only:
            kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
            both = [*(row for row in kept if row["name"] not in only), *found["rows"]]
            found["rows"] = sorted(both, key=lambda row: row["name"].lower())
        RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

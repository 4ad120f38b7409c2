"""The campaign: kills, damages, hostile files and full disks, counted.

`make campaign` runs it whole; a minute of it, with all kinds of attempts, is

    python tests/campaigns/run.py --no-page --json small.json --kills 3 --finetune-kills 2 --sweep-kills 1 \\
        --damages 60 --hostile 60 --disks 8

It writes the counts and every failure as JSON, and the table of docs/campaign.md. Not part of the test suite.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import accelerate  # noqa: E402, F401  # all that forks would import one by one
import matplotlib.backends.backend_agg  # noqa: E402
import matplotlib.backends.backend_svg  # noqa: E402, F401
import torch  # noqa: E402
import transformers.models.llama.modeling_llama  # noqa: E402, F401

torch.set_num_threads(1)

import damages  # noqa: E402
import disks  # noqa: E402
import hostile  # noqa: E402
import kills  # noqa: E402
import places  # noqa: E402
from attempts import Tally, attempt  # noqa: E402

import ocr_interp.circuits.analysis  # noqa: E402
import ocr_interp.cli  # noqa: E402
import ocr_interp.cli.ablate.specs  # noqa: E402
import ocr_interp.llm.inside.inside  # noqa: E402
import ocr_interp.models.hooked39  # noqa: E402
import ocr_interp.theory.solve  # noqa: E402, F401
from ocr_interp.cli.ablate import Ablate  # noqa: E402, F401

PAGE, BEGIN, END = ROOT / "docs" / "campaign.md", "<!-- campaign -->", "<!-- /campaign -->"
COLUMNS = ("tried", "accepted", "refused", "silent", "lost", "tracebacks", "hangs", "memory", "died")
_GRID = "axes:\n  d_head: [2, 3]\n  seed: [0, 1]\ntrain:\n  steps: 20\n  lr: 1e-3\n"
_FACTS = "subject,fact,implication\nMara Holloway,Rome,Italian\nNoel Wren,Oslo,Norwegian\n"


def make_all(made: Path) -> None:
    """One of everything that is attacked."""
    made.mkdir()
    model = made / "model"

    def stop(row: object) -> None:
        if isinstance(row, dict) and row["step"] == 6:
            raise KeyboardInterrupt

    def stopped() -> str:
        try:
            places.do_finetune(model, made / "stopped", stop)
        except KeyboardInterrupt:
            return "stopped"
        return "finished"

    for work in (
        lambda: places.do_train(made / "run"),
        lambda: places.do_sweep(made / "sweep"),
        lambda: places.do_ablate(made / "run", made / "table.csv"),
        lambda: places.make_graph(made / "run", made / "graph.json"),
        lambda: places.make_model(model),
        lambda: places.do_finetune(model, made / "finetuned"),
        stopped,
    ):
        done = attempt(work, own_limit=120)
        assert done.kind == "ok", f"{done.kind}: {done.text}"
    (made / "grid.yaml").write_text(_GRID)
    (made / "facts.csv").write_text(_FACTS)


def table(rows: list[Tally]) -> str:
    """The counts as Markdown."""
    head = ["attack", *COLUMNS]
    whole = Tally("all", **{name: sum(getattr(row, name) for row in rows) for name in COLUMNS})
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in (*rows, whole):
        lines.append(f"| {row.name} | {' | '.join(str(getattr(row, name)) for name in COLUMNS)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    counts = {
        "kills": 100,
        "finetune-kills": 100,
        "sweep-kills": 20,
        "damages": 1000,
        "hostile": 1000,
        "disks": 100,
    }
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "campaign.json")
    parser.add_argument("--no-page", action="store_true", help="leave docs/campaign.md as it is")
    given = parser.parse_args()
    rng, start, rows = random.Random(given.seed), time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        folder = Path(name)
        os.chdir(folder)
        make_all(folder / "made")
        parts = {
            "hostile": lambda at: hostile.campaign(given.hostile, rng, at, folder / "made"),
            "damages": lambda at: damages.campaign(given.damages, rng, at, folder / "made"),
            "disks": lambda at: disks.campaign(given.disks, rng, at, folder / "made"),
            "kills": lambda at: kills.campaign(
                {"train": given.kills, "finetune": given.finetune_kills, "sweep": given.sweep_kills},
                rng,
                at,
                folder / "made" / "model",
            ),
        }
        for part, work in parts.items():
            if getattr(given, part) or (part == "kills" and (given.finetune_kills or given.sweep_kills)):
                (folder / part).mkdir()
                rows += work(folder / part)
                sys.stderr.write(f"{part}: {time.monotonic() - start:.0f} s\n")
                _write(given, rows, start)
    sys.stdout.write(table(rows) + "\n")
    return int(any(row.failures for row in rows))


def _write(given: argparse.Namespace, rows: list[Tally], start: float) -> None:
    content = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seed": given.seed,
        "seconds": round(time.monotonic() - start),
        "rows": [asdict(row) for row in rows],
    }
    given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not given.no_page and PAGE.exists():
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

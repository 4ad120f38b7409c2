"""ocr-interp ablate: measures a run without parts of its circuit, beside random controls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ocr_interp.ablation.edits import edits
from ocr_interp.cli.arguments.files import check_output, check_routes, read_snapshot, say
from ocr_interp.errors import ConfigError

if TYPE_CHECKING:
    from ocr_interp.training.run import Snapshot

Metric = Literal["accuracy", "loss", "margin", "logit_difference", "other_answer_difference"]
_SPEC = (
    f"pairs EDIT PLACE, one ablation per pair; EDIT is {', '.join(edits)}, with options written as "
    'NAME:option=value,option=value, e.g. --spec resample:seed=3 v@r1 mean "subjects -> facts"'
)


@dataclass(frozen=True)
class Ablate:
    """Ablate parts of a run's circuit; by default singular blocks, paths, and attention by kind of token.

    A PLACE is a site or a path. A site is HOOK[:HEADS][@TOKENS]. HOOK is z, v, pattern, attn_out or a full
    name such as blocks.0.attn.hook_z; HEADS are numbers such as 0,2; TOKENS are labels or kinds of tokens.
    Examples: v@r1, pattern@noise, "v@held-out subjects". A path is "FROM -> TO": FROM are labels or kinds of
    input tokens, TO are labels or kinds of answers, or all.
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """directory of the run"""
    step: int | None = None
    """step of a snapshot to use instead of the end of training"""
    spec: Annotated[tuple[tuple[str, str], ...], tyro.conf.arg(help=_SPEC)] = ()
    zero: tuple[str, ...] = ()
    """places to set to zero, one ablation per place; short for --spec zero PLACE"""
    mean: tuple[str, ...] = ()
    """places to set to their mean over the examples, one ablation per place"""
    resample: tuple[str, ...] = ()
    """places whose values come from another prompt, drawn at random; one ablation per place"""
    block: tuple[int, ...] = ()
    """indices of degenerate singular blocks of diag(a) W_OV to remove, 0 the largest; `analyze` lists them"""
    path: tuple[tuple[str, str], ...] = ()
    """pairs FROM TO of kinds or labels, whose path is cut, e.g. --path "held-out subjects" implications; TO
    may be all; short for --spec zero with the place FROM -> TO"""
    tolerance: float = 0.05
    """singular values that differ by at most this share of the largest form one block"""
    seeds: tuple[int, ...] = (0,)
    """seeds of the noise in the examples and of the random controls"""
    controls: bool = True
    """also measure random ablations of the same size: as many positions per prompt, or equal removed norm"""
    draws: int = 4
    """noisy prompts per triple; runs trained without noise have one"""
    show: tuple[Metric, ...] = ("accuracy", "margin")
    """metrics to show in the terminal; the file has all of them"""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """a .csv file for the table; rows that it already has are not measured again"""

    def run(self) -> None:
        check_output(self.output, (".csv",))
        if not self.show or not self.seeds:
            raise ConfigError("--show and --seeds need at least one value each")
        import torch

        torch.set_num_threads(1)  # small matrices: a second thread costs more than it gives
        from ocr_interp.ablation.study import run_ablation_study
        from ocr_interp.cli.ablate.specs import SANITY, SANITY_NOTE, chosen_specs, default_specs, try_specs
        from ocr_interp.viz.text.study import describe_study

        snapshot = read_snapshot(self.run_dir, self.step)
        short = (("zero", self.zero), ("mean", self.mean), ("resample", self.resample))
        named = [(edit, place) for edit, places in short for place in places] + list(self.spec)
        reading = {"tolerance": self.tolerance, "draws": self.draws}
        if self.block or not (named or self.path):
            then = "ablate {run} --zero z:0 z:1, which cuts off expert 0, then expert 1"
            check_routes(self.run_dir, snapshot, then)
        specs = chosen_specs(snapshot, named, self.block, self.path, **reading) or default_specs(snapshot)
        try_specs(snapshot, specs, self.seeds[0])
        study = run_ablation_study(
            snapshot, specs, seeds=self.seeds, controls=self.controls, path=self.output, eval_draws=self.draws
        )
        say(_title(self.run_dir, snapshot, self.seeds))
        say(describe_study(study, self.show, [SANITY_NOTE] if SANITY in specs else []))
        if self.output is not None:
            say(f"all rows: {self.output}")


def _title(run_dir: Path, run: Snapshot, seeds: tuple[int, ...]) -> str:
    return f"{run_dir}: {run.config.model.ov} at step {run.step:,}, mean over {len(seeds)} seed(s)\n"

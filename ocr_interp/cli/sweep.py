"""ocr-interp sweep: trains a grid of configurations, many models at once."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ocr_interp.checks import as_tuples
from ocr_interp.cli.arguments.files import say
from ocr_interp.cli.arguments.values import as_value
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, shown, unknown_name
from ocr_interp.storage.reading import parse_yaml, read_text
from ocr_interp.task import FactRecallTask, count_pairs

SECTIONS = ("axes", "task", "model", "train")


@dataclass(frozen=True)
class Sweep:
    """Train a grid of configurations, many models at once; the same command resumes a stopped sweep.

    Give the grid as --axis d_head=2,4,8 --axis lr=1e-3,5e-3 --axis seed=0:5, which trains every combination;
    or as a YAML file with the section axes (field -> values, or a list of points) and optionally the sections
    task, model and train (what all points share).
    """

    path: Annotated[Path, tyro.conf.Positional]
    """folder of the sweep; runs in it are not trained again; runs.csv and table.csv have the results"""
    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=VALUE,VALUE,... for a field of task, model or train; once per field; 0:5 means 0,1,2,3,4"""
    grid: Path | None = None
    """a YAML file with the grid, instead of --axis"""
    engine: Literal["local", "ray"] = "local"
    """where to train: local, in this process; ray, on a Ray cluster (see --ray-address)"""
    workers: int | None = None
    """stacks of models trained at the same time; None is 1 with local, and one per CPU with ray"""
    ray_address: str | None = None
    """address of a Ray cluster; auto uses the cluster that is running; None starts one on this machine"""
    stack: int | None = None
    """models of one shape trained together as a stack; None is 16 on a CPU and 256 on a GPU"""
    certificates: bool = True
    """compute certified gaps of the norms at every logged step, which takes half the time of a logged row"""
    keep_weights: bool = False
    """keep the weights of every run at its last step"""
    task: FactRecallTask = field(default_factory=FactRecallTask)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def run(self) -> None:
        axes, shared = self._grid()
        from ocr_interp.running.progress import bar_or_lines
        from ocr_interp.sweeps.sweep import sweep
        from ocr_interp.viz.text.sweep import describe_sweep

        result = sweep(
            axes,
            **shared,
            path=self.path,
            engine=self.engine,
            workers=self.workers,
            ray_address=self.ray_address,
            stack=self.stack,
            certificates=self.certificates,
            keep_weights=self.keep_weights,
            progress=bar_or_lines(),
        )
        say(describe_sweep(result))
        say(f"\nall rows: {self.path / 'table.csv'}")

    def _grid(self) -> tuple[Any, dict[str, Any]]:
        """The axes, and the configurations that all points share."""
        flags: dict[str, Any] = {"task": self.task, "model": self.model, "train": self.train}
        if self.grid is None:
            if not self.axis:
                raise ConfigError("a sweep needs --axis FIELD=VALUE,VALUE at least once, or --grid FILE")
            return parse_axes(self.axis), flags
        if self.axis:
            raise ConfigError("--axis and --grid exclude each other: write the axes into the file")
        content = read_grid(self.grid)
        for part, config in flags.items():
            if part in content:
                if config != type(config)():
                    raise ConfigError(f"{self.grid} has a section {part}: its fields go there, not in flags")
                flags[part] = _with_fields(part, config, content[part])
        return content["axes"], flags


def parse_axes(texts: tuple[str, ...]) -> dict[str, list[Any]]:
    """Reads axes written as FIELD=VALUE,VALUE,...

    Raises:
        ConfigError: a text of another form, a field twice, or more values than a sweep may have points.
    """
    from ocr_interp.sweeps.grid import MOST_POINTS

    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not (equals and name and values.strip()):
            raise ConfigError(f"--axis must be FIELD=VALUE,VALUE,..., got {text!r}")
        if name in axes:
            raise ConfigError(f"--axis {name} is given twice: write all its values in one")
        parts = (_values(part.strip()) for part in values.split(","))
        axes[name] = list(itertools.islice(itertools.chain.from_iterable(parts), MOST_POINTS + 1))
        if len(axes[name]) > MOST_POINTS:
            raise ConfigError(f"--axis {name} has more than the {MOST_POINTS:,} points that a sweep may have")
    return axes


def read_grid(path: Path) -> dict[str, Any]:
    """Reads a YAML file with SECTIONS; text that can be read as a number, such as 1e-3, becomes one.

    Raises:
        ConfigError: unreadable YAML, an unknown section, or no axes.
    """
    try:
        content = parse_yaml(read_text(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping) or "axes" not in content:
        raise ConfigError(f"{path} must map {', '.join(SECTIONS)} to their fields, at least axes")
    for section in content:
        if section not in SECTIONS:
            raise unknown_name(f"section of {path}", section, SECTIONS)
    return {section: as_value(value) for section, value in content.items()}


def _values(text: str) -> Sequence[Any]:
    """Reads a value, or a range of whole numbers such as 0:5."""
    first, colon, last = text.partition(":")
    if colon:
        try:
            return range(int(first), int(last))
        except ValueError:
            raise ConfigError(f"a range must be FIRST:END in whole numbers, got {text!r}") from None
    return [as_value(text)]


def _with_fields(part: str, config: Any, fields: Any) -> Any:
    if not isinstance(fields, Mapping):
        raise ConfigError(f"section {part} must map fields to values, got {shown(fields)}")
    known = [each.name for each in dataclasses.fields(config)]
    for name in fields:
        if name not in known:
            raise unknown_name(f"{part} field", name, known)
    given = {name: as_tuples(value) for name, value in fields.items()}
    if part == "task":
        count_pairs(given)
    return dataclasses.replace(config, **given)

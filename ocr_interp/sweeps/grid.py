"""A grid of configurations: its axes are any fields of the task, the model and the training recipe."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocr_interp.checks import as_tuples
from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, OcrInterpError, shown, unknown_name
from ocr_interp.task import FactRecallTask, count_pairs

PARTS: dict[str, Any] = {"task": FactRecallTask, "model": ModelConfig, "train": TrainConfig}

Axes = Mapping[str, Iterable[Any]] | Sequence[Mapping[str, Any]] | Any
"""A mapping field -> values, of which every combination is a point; or a list of points, field -> value."""


MOST_POINTS = 100_000
"""Most runs of a sweep."""


def _fields() -> dict[str, tuple[str, str]]:
    """Name of an axis -> (part, field): the dotted name, and the plain one if only one part has the field."""
    found = [(part, field.name) for part, cls in PARTS.items() for field in dataclasses.fields(cls)]
    parts_with = Counter(field for _, field in found)
    plain = {field: (part, field) for part, field in found if parts_with[field] == 1}
    return {**plain, **{f"{part}.{field}": (part, field) for part, field in found}}


FIELDS = _fields()
"""Names of axes, in addition to the names in PARTS, whose values are whole configurations."""

COLUMN_OF_FIELD = {
    target: min((name for name in FIELDS if FIELDS[name] == target), key=len)
    for target in dict.fromkeys(FIELDS.values())
}
"""(part, field) -> its column in the tables: the plain name if it is unique, else the dotted one."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        values: the values of its axes, by column.
        config: its whole configuration.
    """

    values: dict[str, Any]
    config: RunConfig

    @property
    def label(self) -> str:
        """Its values as text, for example "lr=0.01, seed=3"."""
        return _label(self.values)


def grid_points(
    axes: Axes,
    task: FactRecallTask | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
) -> list[Point]:
    """All runs of a sweep, in the order of the axes; nothing is trained.

    Args:
        axes: field -> values, e.g. {"d_head": [3, 4], "m_train": [1, 2], "lr": [1e-3], "seed": range(5)};
            or a list of points, for a grid that is not a product. Names are fields of the three
            configurations, dotted ("train.lr") if two of them have the field; "task", "model" and "train"
            take whole configurations.
        task, model, train: configuration of everything that is not an axis; None is the default.

    Raises:
        UnknownNameError: a name that is not a field; the message lists close matches.
        ConfigError: no point, the same point twice, or a configuration that is not allowed; the message
            names the point.
    """
    given = {"task": task, "model": model, "train": train}
    shared = {part: PARTS[part]() if config is None else config for part, config in given.items()}
    points = [_point(shared, values) for values in _combinations(axes)]
    if not points:
        raise ConfigError("a sweep needs at least one point, got none: is a list of values empty?")
    seen: dict[str, Point] = {}
    for point in points:
        other = seen.setdefault(point.config.fingerprint, point)
        if other is not point:
            raise ConfigError(
                f"each point must be another configuration, got ({other.label}) and ({point.label}), which "
                "are the same: leave one out"
            )
    return points


def _label(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in values.items()) or "the defaults"


def _short(value: Any) -> str:
    return value[:200] if isinstance(value, str) else shown(value)


def _combinations(axes: Any) -> list[dict[str, Any]]:
    if isinstance(axes, Mapping):
        lists, count = {}, 1
        for name, values in axes.items():
            _target(name)
            if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
                raise ConfigError(
                    f"axis {name} must be a list of values, got {shown(values)}: write [{shown(values)}]"
                )
            lists[name] = list(itertools.islice(values, MOST_POINTS + 1))  # it may have no end
            count *= len(lists[name])
            _refuse_too_many(count)
        return [dict(zip(lists, chosen, strict=True)) for chosen in itertools.product(*lists.values())]
    if isinstance(axes, str) or not isinstance(axes, Sequence):
        raise ConfigError(f"axes must map fields to lists of values, or list points, got {shown(axes)}")
    _refuse_too_many(len(axes))
    for point in axes:
        if not isinstance(point, Mapping):
            raise ConfigError(f"a point must map fields to values, got {shown(point)}")
    return [dict(point) for point in axes]


def _refuse_too_many(count: int) -> None:
    if count > MOST_POINTS:
        raise ConfigError(
            f"a sweep may have at most {MOST_POINTS:,} points, got {count:,} or more: divide it into several"
        )


def _target(name: Any) -> tuple[str, str | None]:
    """(part, field) of an axis; the field is None where the axis takes whole configurations."""
    if not isinstance(name, str):
        raise unknown_name("axis", name, [n for n in (*FIELDS, *PARTS) if "." not in n])
    if name in PARTS:
        return name, None
    if name in FIELDS:
        return FIELDS[name]
    parts = [part for part, cls in PARTS.items() if name in {f.name for f in dataclasses.fields(cls)}]
    if parts:
        dotted = " or ".join(f"{part}.{name}" for part in parts)
        raise ConfigError(f"axis {name!r} is a field of {' and of '.join(parts)}: write {dotted}")
    raise unknown_name("axis", name, [n for n in (*FIELDS, *PARTS) if "." not in n or "." in str(name)])


def _point(shared: Mapping[str, Any], values: Mapping[str, Any]) -> Point:
    parts, changes, columns = dict(shared), {part: {} for part in PARTS}, {}
    for name, value in values.items():
        part, field = _target(name)
        if field is None:
            if not isinstance(value, PARTS[part]):
                raise ConfigError(f"axis {part} must hold {PARTS[part].__name__} values, got {shown(value)}")
            parts[part] = value
            default = shared[part]
            for each in dataclasses.fields(value):
                if getattr(value, each.name) != getattr(default, each.name):
                    columns[COLUMN_OF_FIELD[part, each.name]] = getattr(value, each.name)
        else:
            value = as_tuples(value.tolist() if hasattr(value, "tolist") else value)
            changes[part][field] = columns[COLUMN_OF_FIELD[part, field]] = value
    count_pairs(changes["task"])
    try:
        made = {part: dataclasses.replace(parts[part], **changes[part]) for part in PARTS}
    except OcrInterpError as error:
        raise ConfigError(f"invalid point ({_label(columns)}): {error}") from None
    for column, value in columns.items():
        if isinstance(value, Mapping | tuple):  # a configuration keeps such a value in its own form
            part, field = FIELDS[column]
            columns[column] = getattr(made[part], field)
    return Point(columns, RunConfig(made["task"], made["model"], made["train"]))


def config_columns(config: RunConfig) -> dict[str, Any]:
    """Every field of a configuration by its column."""
    values = config.to_dict()
    return {column: values[part][field] for (part, field), column in COLUMN_OF_FIELD.items()}

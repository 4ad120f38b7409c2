"""Trains a model with a mitigation, measures it, and lets training go on without."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ocr_interp.checks import check_count, check_number
from ocr_interp.devices import resolve_device
from ocr_interp.errors import ConfigError, RunError, TrainingDivergedError, shown
from ocr_interp.mitigation.aim import Aim, joined
from ocr_interp.mitigation.descent import Descent
from ocr_interp.mitigation.going_on import without_method
from ocr_interp.mitigation.measured import Measured, measure
from ocr_interp.mitigation.methods import mitigations
from ocr_interp.mitigation.methods.base import Mitigation
from ocr_interp.task import FactRecallTask
from ocr_interp.triples import Triples

_BETWEEN = 10
"""Steps between looks at the margin."""


@dataclass(frozen=True)
class Mitigated:
    """One model that was trained with a mitigation.

    Attributes:
        aim: the task and what is unwanted.
        method: the method.
        seed: of the start and of the method's draws.
        measured: at the end of training with the method.
        after: after as many steps again without it; None if training did not go on.
        W: the matrix that each relation's prompts have, at the end of training with the method.
        steps: updates with the method.
        n_parameters: numbers that were trained.
        n_examples: answers that it was told beside the training set.
        n_prompts: untold prompts that it used without an answer.
        cpu_seconds: of training and measuring with the method.
    """

    aim: Aim = field(repr=False)
    method: Mitigation
    seed: int
    measured: Measured
    after: Measured | None = field(repr=False)
    W: Float[np.ndarray, "relation input output"] = field(repr=False)
    steps: int
    n_parameters: int
    n_examples: int
    n_prompts: int
    cpu_seconds: float

    def row(self) -> dict[str, Any]:
        """Everything but W as one row of a table; columns of `after` begin with "after_"."""
        after = {} if self.after is None else asdict(self.after)
        return {
            "method": self.method.name,
            "options": ", ".join(f"{name}={value}" for name, value in asdict(self.method).items()),
            "knows": self.method.knows,
            "seed": self.seed,
            **asdict(self.measured),
            **{f"after_{name}": value for name, value in after.items()},
            "steps": self.steps,
            "n_parameters": self.n_parameters,
            "n_examples": self.n_examples,
            "n_prompts": self.n_prompts,
            "cpu_seconds": self.cpu_seconds,
        }


def mitigate(
    task: FactRecallTask,
    unwanted: str | Sequence[str],
    method: Any = "none",
    *,
    seed: int = 0,
    entries: float = 0.01,
    margin: float = 20.0,
    go_on: bool = True,
    max_steps: int = 20_000,
    device: str = "cpu",
) -> Mitigated:
    """Trains the told answers with a method, and then as many steps again without it.

    Training ends when every told answer leads every other output by `margin`, so that methods are compared
    at equal knowledge. Without the method training goes on as a factorized model on the plain training set:
    from its own factors; or from balanced factors of its one matrix; or, where relations have matrices of
    their own, with a factorized update beside them, from a small start.

    Args:
        task: with several implied relations; noise is left out.
        unwanted: names of the relations of which nothing is to be deduced.
        method: a name of `mitigations`, a Mitigation with its options, or its class for the defaults.
        seed: of the start, and of the method's draws.
        entries: standard deviation of the entries at the start.
        margin: where training ends, logits.
        go_on: whether training goes on without the method.
        max_steps: give up after so many.
        device: "cpu", "cuda" or "auto"; float64 throughout.

    Raises:
        UnknownNameError: a relation or a method that there is not.
        ConfigError: an aim or options that do not fit.
        TrainingDivergedError: weights that are not finite.
        RunError: the margin was not reached.
    """
    aim, method = Aim.of(task, unwanted), _as_method(method)
    check_count("seed", seed, 0)
    check_count("max_steps", max_steps, 1)
    check_number("entries", entries, above=0)
    check_number("margin", margin, above=0)
    where, begun = resolve_device(device, "float64"), time.process_time()
    told, asked = method.told(aim, seed), method.asked(aim, seed)
    linear_map = method.linear_map(aim, seed)
    start = method.start(aim, linear_map, entries, seed)
    descent = Descent(
        aim, told, linear_map, method.routes(aim), start, method.optimizer_and_rate(), device=where
    )
    _advance_to(descent, method, margin, max_steps, seed)
    trained = descent.W().cpu().numpy()
    used = method.finished(trained, aim, seed)
    untold = _measured(aim, told, asked)
    measured = measure(aim, used[list(descent.routes)], told, untold)
    seconds, after = time.process_time() - begun, None
    if go_on:
        plain = without_method(descent, used, trained, entries, seed)
        plain.advance(descent.step)
        after = measure(aim, plain.W().cpu().numpy()[list(plain.routes)], aim.told, untold)
    return Mitigated(
        aim=aim,
        method=method,
        seed=seed,
        measured=measured,
        after=after,
        W=used[list(descent.routes)],
        steps=descent.step,
        n_parameters=descent.n_trained,
        n_examples=len(told) - len(aim.told),
        n_prompts=len(asked),
        cpu_seconds=seconds,
    )


def compare(
    task: FactRecallTask,
    unwanted: str | Sequence[str],
    methods: Any = None,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    **options: Any,
) -> pd.DataFrame:
    """One row per method and seed, with the columns of `Mitigated.row` and "label".

    Args:
        task, unwanted: as in `mitigate`.
        methods: a list of methods as `mitigate` takes them (names, Mitigations or classes), labelled by name
            and by the options that differ from their defaults; or label -> method; None: every method of the
            registry at its defaults.
        seeds: one model each.
        options: of `mitigate`.

    Raises:
        UnknownNameError: a method that there is not, before anything is trained.
        ConfigError: no method, one twice, or something else than a method; and what `mitigate` raises.
    """
    chosen = _labelled(list(mitigations) if methods is None else methods)
    return pd.DataFrame(
        [
            {"label": label, **mitigate(task, unwanted, method, seed=seed, **options).row()}
            for label, method in chosen.items()
            for seed in seeds
        ]
    )


def _labelled(methods: Any) -> dict[str, Mitigation]:
    """Methods by label, each label once."""
    if isinstance(methods, Mapping):
        found = [(label, _as_method(method)) for label, method in methods.items()]
    else:
        several = methods if isinstance(methods, list | tuple) else [methods]
        found = [(_label(method), method) for method in map(_as_method, several)]
    labels = [label for label, _ in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or not found:
        raise ConfigError(
            "methods must name at least one method and each once, got "
            + (f"{', '.join(twice)} twice: pass seeds for several models of one" if twice else "none")
        )
    return dict(found)


def _label(method: Mitigation) -> str:
    """Its name, with the options that differ from their defaults: "penalty(weight=2.0)"."""
    options = [
        f"{each.name}={getattr(method, each.name)!r}"
        for each in fields(method)
        if getattr(method, each.name) != each.default
    ]
    return method.name + (f"({', '.join(options)})" if options else "")


def _as_method(method: Any) -> Mitigation:
    if isinstance(method, str):
        return mitigations[method]()
    if isinstance(method, type) and issubclass(method, Mitigation):
        return method()
    if not isinstance(method, Mitigation):
        raise ConfigError(
            f"method must be a name ({', '.join(mitigations.names)}) or a Mitigation, "
            f"got {shown(method)}: make one, such as Penalty(weight=2.0)"
        )
    return method


def _advance_to(descent: Descent, method: Mitigation, margin: float, max_steps: int, seed: int) -> None:
    """Advances until the told margin is reached."""
    steering = method.steering(descent, seed)
    while True:
        reached = float(descent.margin())
        if not np.isfinite(reached):
            raise TrainingDivergedError(
                f"{method.name!r} diverged at step {descent.step}: its weights are not finite, lower its "
                "rate or its weight"
            )
        if reached >= margin:
            return
        if descent.step >= max_steps:
            raise RunError(
                f"{method.name!r} has a told margin of {reached:.3g} after max_steps={max_steps}, required "
                f"{margin:g}: raise max_steps, lower margin, or weaken the method"
            )
        descent.advance(min(_BETWEEN, max_steps - descent.step), steering)


def _measured(aim: Aim, told: Triples, asked: Triples) -> Triples:
    """Untold prompts that the method did not use; of a relation that it used whole, those without answer."""
    unanswered = aim.without(told)
    left = aim.without(joined(told, asked))
    kept = [
        of if (of := left.select(left.relation == k)) else unanswered.select(unanswered.relation == k)
        for k in (*aim.wanted_relations, *aim.unwanted_relations)
    ]
    found = kept[0]
    for other in kept[1:]:
        found = joined(found, other)
    return found

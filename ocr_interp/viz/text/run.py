"""A run as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ocr_interp.task import SPLITS
from ocr_interp.theory import solve
from ocr_interp.theory.closed.closed_form import has_closed_form
from ocr_interp.theory.norms import Norm, as_norm
from ocr_interp.training.columns import column_meaning
from ocr_interp.training.limits import tracked_norms
from ocr_interp.training.run import Run
from ocr_interp.training.tracking import IMPLICATION_SPLITS, implication_relations
from ocr_interp.viz.text.predictions import PredictedBeta
from ocr_interp.viz.text.subjects import who_is_deduced
from ocr_interp.viz.text.undefined import Numbers


def describe_run(run: Run) -> str:
    """A run's configuration, progress and results as aligned text.

    Losses in nats; margins are logit differences; accuracies are shares of examples.
    """
    task, model, recipe = run.task, run.config.model, run.config.train
    row = {str(name): float(value) for name, value in run.history.iloc[-1].items()}
    sizes = task.balanced_sizes
    shape = f"(n, m_train, m_test) = {sizes}" if sizes else f"{task.n_subjects} subjects in unequal groups"
    if task.implied_relations > 1:
        shape += f", {task.implied_relations} implications of a fact"
    attention = f"{model.attention} attention, {'trained' if model.train_attention else 'frozen'}"
    lines = [
        f"{run.path or 'a run in memory'}: {run.status} at step {run.step:,} of {recipe.steps:,}",
        f"task      {task.n_facts} facts, {task.n_implications} implications, {shape}, "
        f"vocabulary {task.d_vocab}",
        f"model     {_parameterisation(run)}, {attention}, start {model.init!r} x {model.init_scale:g}, "
        f"{model.dtype}",
        f"recipe    {recipe.data} data, {recipe.optimizer}, lr {recipe.lr:g}, weight decay "
        f"{recipe.weight_decay:g}, seed {recipe.seed}",
        "",
        f"{'':22}{'loss':>10}{'accuracy':>12}{'accuracy':>12}{'margin':>10}",
        f"{'among':22}{'all tokens':>10}{'all answers':>12}{'its set':>12}{'its set':>10}",
    ]
    numbers = Numbers()
    for split in SPLITS:
        columns = ("loss", "accuracy", "accuracy_in_set", "margin")
        loss, accuracy, in_set, margin = (row[f"{split}/{column}"] for column in columns)
        name = split.replace("_", " ") + (" *" if split == SPLITS[-1] else "")
        nobody = f"the task has no {split.replace('_', ' ')}s"
        shown = ((loss, "10.4g"), (accuracy, "12.3f"), (in_set, "12.3f"), (margin, "10.3f"))
        lines.append(f"{name:22}" + "".join(numbers.show(value, spec, nobody) for value, spec in shown))
        for relation in implication_relations(task) if split in IMPLICATION_SPLITS else ():
            told = [row[f"{split}/{relation}/{column}"] for column in columns]
            cells = zip(told, ("10.4g", "12.3f", "12.3f", "10.3f"), strict=True)
            lines.append(
                f"{'  ' + relation:22}" + "".join(numbers.show(v, spec, nobody) for v, spec in cells)
            )
    counts = dict.fromkeys(task.implication_counts)
    guess = ", ".join(f"ln {count} = {math.log(count):.3f}" for count in counts)
    alone = "implications" if task.implied_relations == 1 else "the implications of one relation"
    lines += [
        *numbers.notes,
        f"its set: facts or {alone} alone; margin: smallest logit difference to a rival there",
        f"* never told; guessing among the implications has loss {guess}",
        *(who_is_deduced(run.table()) if task.names is not None or sizes is None else ()),
        "",
        f"{_norms_of(run)}: nuclear norm {row['nuclear_norm']:.4g}, "
        f"Frobenius norm {row['frobenius_norm']:.4g}, effective rank {row['effective_rank']:.2f}",
        f"divided by the smallest training margin among all answers ({row['train_margin']:.4g}): "
        + _normalised(row["nuclear_norm"], row["frobenius_norm"], row["train_margin"]),
        _beta_line(run, row["beta"]),
        *_limit_lines(run, row),
        *_expert_lines(row),
        f"snapshots at steps {', '.join(f'{step:,}' for step in run.snapshot_steps) or 'none'}",
    ]
    return "\n".join(lines)


def _parameterisation(run: Run) -> str:
    """Its name, the options that were given, and its width if it has one that can be set."""
    model = run.config.model
    options = ", ".join(f"{name} {value}" for name, value in dict(model.ov_options).items())
    named = f"{model.ov} ({options})" if options else model.ov
    if not run.weights.linear_map.takes_d_head:
        return named
    return f"{named}, d_head {model.resolved_d_head(run.task.d_vocab)}"


def _norms_of(run: Run) -> str:
    """What the norms are of."""
    n_routes = run.weights.linear_map.n_routes
    return "diag(a) W_OV" if n_routes is None else f"diag(a) W_OV of {n_routes} experts, one below the other"


def _limit_lines(run: Run, row: Mapping[str, float]) -> list[str]:
    """Distances from the max-margin solutions, or why there are none."""
    linear_map = run.weights.linear_map
    if linear_map.n_routes is not None:
        return ["prompts are routed to experts: no single W_OV, so none of the max-margin solutions of one"]
    return [_limit_line(run, row, as_norm(norm)) for norm in tracked_norms(linear_map.norm)]


def _expert_lines(row: Mapping[str, float]) -> list[str]:
    """Loads of the experts of a routed model."""
    scores = [value for name, value in row.items() if name.startswith("expert") and name.endswith("/score")]
    if not scores:
        return []
    entropy = row["router/entropy"]
    router = "" if math.isnan(entropy) else f", entropy {entropy:.3f} of ln {len(scores)} nats"
    return [f"experts   mean scores {', '.join(f'{score:.3f}' for score in scores)}{router}"]


def describe_columns(run: Run) -> str:
    """Every column of a run's history: its last value and its meaning, with the answer set or reference."""
    last = run.history.iloc[-1]
    width = max(len(str(name)) for name in last.index)
    return "\n".join(
        f"{name!s:{width}}{float(value):12.5g}  {column_meaning(str(name)) or 'of an earlier version'}"
        for name, value in last.items()
    )


def _predicted(run: Run) -> str:
    """β of the max-margin solution without weight decay, and of the saddle; empty without a prediction."""
    known = PredictedBeta.of(run)
    if known is None:
        model, norm = run.config.model, run.weights.linear_map.norm
        if not (model.train_attention and run.task.implied_relations > 1 and norm is not None):
            return ""
        if model.attention != "linear" or not has_closed_form(run.task, norm):
            return ""
        frozen = f"with frozen attention the max-margin solution has {solve(run.task, norm).beta:.4f}"
        return f" (no reference: trained attention with several implications is not solved; {frozen})"
    beside = "" if known.saddle is None else f"; saddle, where a small start goes: {known.saddle:.4f}"
    if known.is_interval:
        return f" (max-margin solutions, trained attention: {known.low:.4f} to {known.high:.4f}{beside})"
    if run.config.model.train_attention:
        return f" (max-margin solution: {known.low:g}{beside})"
    return f" (max-margin solution, frozen attention: {known.low:.4f}{beside})"


def _beta_line(run: Run, beta: float) -> str:
    """β with its prediction, or why there is none."""
    if math.isfinite(beta):
        several = {
            name: float(run.history[f"beta/{name}"].iloc[-1]) for name in implication_relations(run.task)
        }
        each = ", ".join(f"{name} {value:.4f}" for name, value in several.items())
        alone = f", by relation {each}" if each else ""
        return f"held-out coefficient beta {beta:.4f}{alone}{_predicted(run)}"
    trained = run.task.told[1:]
    why = "held-out subjects" if trained.all() else "training subjects" if not trained.any() else "size"
    return f"no held-out coefficient beta: the implications have no {why}"


def _limit_line(run: Run, row: Mapping[str, float], found: Norm) -> str:
    """How far the circuit is from the smallest norm at margin 1, and what it is compared with."""
    norm = found.name
    gap = row[f"gap_{norm}"]
    proved = f"certified gap {gap:.3g}" if math.isfinite(gap) else f"no certified gap, {_no_gap(row, gap)}"
    excess, cosine = row[f"excess_{norm}"], row[f"cosine_{norm}"]
    if not has_closed_form(run.task, found):
        return f"{norm} norm: {proved}; no closed form of this task to compare with"
    if not math.isfinite(cosine):
        return f"{norm} norm: {proved}; weights that are zero have no cosine"
    above = f"above the optimum by {excess:.3g}" if math.isfinite(excess) else "no norm at margin 1 yet"
    return f"{norm} norm: {proved}, {above}, cosine with the {norm}-norm solution {cosine:.4f}"


def _no_gap(row: Mapping[str, float], gap: float) -> str:
    if math.isnan(gap):
        return "none was computed"
    return f"since a training margin is {row['train_margin']:.3g}, not above 0"


def _normalised(nuclear: float, frobenius: float, margin: float) -> str:
    if not margin > 0:
        return "no margin yet, so norms say nothing"
    return f"nuclear {nuclear / margin:.4g}, Frobenius {frobenius / margin:.4g}"

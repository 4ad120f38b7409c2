"""A run as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ocr_interp.task import SPLITS
from ocr_interp.theory import solve
from ocr_interp.theory.closed.closed_form import has_closed_form
from ocr_interp.theory.norms import norms
from ocr_interp.training.limits import tracked_norms
from ocr_interp.training.run import Run


def describe_run(run: Run) -> str:
    """A run's configuration, progress and results as aligned text.

    Losses in nats; margins are logit differences; accuracies are shares of examples.
    """
    task, model, recipe = run.task, run.config.model, run.config.train
    row = {str(name): float(value) for name, value in run.history.iloc[-1].items()}
    sizes = task.balanced_sizes
    shape = f"(n, m_train, m_test) = {sizes}" if sizes else f"{task.n_subjects} subjects in unequal groups"
    attention = f"{model.attention} attention, {'trained' if model.train_attention else 'frozen'}"
    lines = [
        f"{run.path or 'a run in memory'}: {run.status} at step {run.step:,} of {recipe.steps:,}",
        f"task      {task.n_facts} facts, {task.n_implications} implications, {shape}, "
        f"vocabulary {task.d_vocab}",
        f"model     {model.ov}, d_head {model.resolved_d_head(task.d_vocab)}, {attention}, start "
        f"{model.init!r} x {model.init_scale:g}, {model.dtype}",
        f"recipe    {recipe.data} data, {recipe.optimizer}, lr {recipe.lr:g}, weight decay "
        f"{recipe.weight_decay:g}, seed {recipe.seed}",
        "",
        f"{'':22}{'loss':>10}{'accuracy':>10}{'in its set':>12}{'margin':>10}",
    ]
    for split in SPLITS:
        columns = ("loss", "accuracy", "accuracy_in_set", "margin")
        loss, accuracy, in_set, margin = (row[f"{split}/{column}"] for column in columns)
        name = split.replace("_", " ") + (" *" if split == SPLITS[-1] else "")
        lines.append(f"{name:22}{loss:10.4g}{accuracy:10.3f}{in_set:12.3f}{margin:10.3f}")
    guess = math.log(task.n_implications)
    lines += [
        f"* never told; guessing among the implications has loss ln {task.n_implications} = {guess:.3f}",
        "",
        f"diag(a) W_OV: nuclear norm {row['nuclear_norm']:.4g}, Frobenius norm {row['frobenius_norm']:.4g}, "
        f"effective rank {row['effective_rank']:.2f}",
        f"divided by the smallest training margin ({row['train_margin']:.4g}): "
        + _normalised(row["nuclear_norm"], row["frobenius_norm"], row["train_margin"]),
        f"held-out coefficient beta {row['beta']:.4f}" + _predicted(run),
        *(_limit_line(row, norm) for norm in tracked_norms(run.weights.linear_map.norm)),
        f"snapshots at steps {', '.join(f'{step:,}' for step in run.snapshot_steps) or 'none'}",
    ]
    return "\n".join(lines)


def _predicted(run: Run) -> str:
    """The predicted β of the max-margin solution without weight decay; empty if there is no prediction."""
    model, task = run.config.model, run.task
    linear_map = model.linear_map
    if model.attention != "linear" or linear_map.norm is None or not has_closed_form(task, linear_map.norm):
        return ""
    assert task.balanced_sizes is not None  # as closed forms have it
    _, m_train, m_test = task.balanced_sizes
    beta = solve(task, linear_map.norm).beta
    trained = norms[linear_map.norm].beta_with_trained_attention(m_train, m_test)
    if trained == (beta, beta):
        return f" (limit: {beta:g})"
    if not model.train_attention:
        return f" (limit with frozen attention: {beta:.4f})"
    return "" if trained is None else f" (limit with trained attention: {trained[0]:.4f} to {trained[1]:.4f})"


def _limit_line(row: Mapping[str, float], norm: str) -> str:
    """How far the circuit is from the smallest norm at margin 1."""
    shown = f"{norm} norm: certified gap {row[f'gap_{norm}']:.3g}"
    if math.isfinite(row[f"cosine_{norm}"]):
        shown += f", above the optimum by {row[f'excess_{norm}']:.3g}, cosine {row[f'cosine_{norm}']:.4f}"
    return shown


def _normalised(nuclear: float, frobenius: float, margin: float) -> str:
    if not margin > 0:
        return "no margin yet, so norms say nothing"
    return f"nuclear {nuclear / margin:.4g}, Frobenius {frobenius / margin:.4g}"

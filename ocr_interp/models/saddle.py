"""The saddle that belongs to a trained model: of its task, its prompts and its attention."""

from __future__ import annotations

from ocr_interp.errors import SolverError
from ocr_interp.models.trained import TrainedModel
from ocr_interp.theory import SaddleSolution, saddle_solution


def saddle_of(run: TrainedModel) -> SaddleSolution | None:
    """Where gradient descent from a small start goes instead of the smallest nuclear norm.

    Frozen attention: with EOS, and noise if the prompts have it, as inputs. Trained attention: from scores as
    small as the factors, of subjects and relations alone.

    Returns: None if there is no such saddle or none is known: a parameterisation that makes another norm
        small, unequal groups, m_train = 0 or m_train >= m_test, softmax attention.
    """
    model, sizes = run.config.model, run.task.balanced_sizes
    if model.linear_map.norm != "nuclear" or model.attention != "linear":
        return None
    if sizes is None or not 0 < sizes[1] < sizes[2]:
        return None
    if not model.train_attention:
        return saddle_solution(run.task, inputs="noise_eos" if run.config.has_noise else "eos")
    try:
        return saddle_solution(run.task, attention="trained")
    except SolverError:  # its small program is not convex, and what is shown of a run must not fail with it
        return None

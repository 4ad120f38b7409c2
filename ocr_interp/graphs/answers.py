"""Which logit difference a prompt of a fact-recall model is explained by, unless one is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ocr_interp.circuits.attribution.of_run import attribute_run
from ocr_interp.errors import ConfigError
from ocr_interp.hooked.tokens.ids import check_tokens
from ocr_interp.hooked.tokens.task_tokens import check_prompt_length
from ocr_interp.models.trained import TrainedModel


def right_answer(run: TrainedModel, prompt: Sequence[int | str]) -> str:
    """The answer that the task gives to the subject and the relation of a prompt.

    Raises:
        UnknownNameError: a token that does not exist, with the close matches.
        ModelError: a prompt longer than the task's seq_len.
        ConfigError: not one subject and one relation.
    """
    task = run.task
    ids = check_tokens(prompt, task.labels, "prompt", repeats=True)
    check_prompt_length(task, len(ids))
    subjects = [i for i in ids if i < task.n_subjects]
    relations = [i for i in ids if i in task.relation_tokens]
    if len(subjects) != 1 or len(relations) != 1:
        raise ConfigError(
            f"a prompt with {len(subjects)} subjects and {len(relations)} relations has no right answer: "
            "pass --answer (answer=)"
        )
    answer = task.right_answer[task.relation_tokens.index(relations[0]), subjects[0]]
    return task.labels[task.n_inputs + int(answer)]


def strongest_other(run: TrainedModel, prompt: Sequence[int | str], answer: int | str) -> str:
    """The answer with the largest logit that is not the one given."""
    labels = run.task.labels
    (own,) = check_tokens([answer], labels, "answers")
    others = [i for i in run.task.answer_tokens if i != own]
    logits = [attribute_run(run, prompt, labels[i]).total for i in others]
    return labels[others[int(np.argmax(logits))]]

"""A head's circuit with the rows and columns of a fact-recall task, to be compared with theory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ocr_interp.circuits.matrix import Circuit
from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.hooked.tokens.task_tokens import task_inputs, task_outputs
from ocr_interp.hooked.tokens.token_set import TokenSet
from ocr_interp.task import FactRecallTask

SAID = "rows per unit of attention: no pattern of a prompt is folded in"
"""What the provenance says of such a circuit."""


def of_a_task(circuit: Circuit, task: FactRecallTask, tokens: Mapping[str, str | int] | None) -> Circuit:
    """Subjects and relations by answers, in the order of the task; for `align` only.

    Args:
        circuit: of a head of any model; its tokens hold the task's subjects, relations and answers.
        task: whose labels name them.
        tokens: label of the task -> label, string or id of the circuit's token, for those that are called
            otherwise there, e.g. {"r1": "lives in", "r2": "speaks"}.

    Raises:
        ModelError: a circuit of a fact-recall run, which has its task; or one token for two labels.
        UnknownNameError: a label that the task does not have, or a token that the circuit does not have.
    """
    if circuit.task is not None:
        raise ModelError("the circuit of a fact-recall run has its task: leave task out")
    rows, columns = task.labels[: task.noise_tokens.start], task.labels[task.n_inputs :]
    named = dict(tokens or {})
    for label in named:
        if label not in (*rows, *columns):
            raise unknown_name("subject, relation or answer of the task", label, (*rows, *columns))
    part = circuit.restrict([named.get(x, x) for x in rows], [named.get(x, x) for x in columns])
    every = task_inputs(task)
    kept = TokenSet(every.ids[: len(rows)], rows, every.group_names, every.group[: len(rows)])
    provenance = dataclasses.replace(part.provenance, flags=(*part.provenance.flags, SAID))
    return dataclasses.replace(
        part,
        inputs=kept,
        outputs=task_outputs(task, "answers"),
        task=task,
        is_effective=True,
        provenance=provenance,
    )

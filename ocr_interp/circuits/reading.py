"""The OV circuit of a fact-recall run, read from its weights by token: no transformer_lens is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.heads import HeadFactors
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.provenance import Provenance, check_finite, fingerprint_of
from ocr_interp.models.trained import TrainedModel
from ocr_interp.models.weights import TokenWeights, weights_of_state_dict
from ocr_interp.task import FactRecallTask

NON_FACTORIZED_FLAG = "non-factorized: left is W_OV, right selects outputs"
"""What the provenance says of a circuit whose left factor is the whole W_OV."""


def used_by_run(task: FactRecallTask, weights: TokenWeights, outputs: Sequence[int]) -> dict[str, Tensor]:
    """What a circuit of a run depends on: rows of inputs, columns of outputs, scores from EOS."""
    n = task.n_inputs
    used = {"W_V": weights.W_V[:n], "scores": weights.W_QK[task.eos_token, :n]}
    if weights.W_O is not None:
        return used | {"W_O": weights.W_O[:, list(outputs)]}
    return used


def read_run(run: TrainedModel, outputs: Sequence[int]) -> tuple[HeadFactors, Float[Tensor, " input"]]:
    """The factors of a run's circuit from all inputs to some outputs, and what EOS scores for the inputs.

    Raises:
        WeightsError: NaN or infinite weights.
    """
    task, config, weights = run.task, run.config, run.weights
    used = used_by_run(task, weights, outputs)
    name = f"fact-recall {config.model.ov}"
    check_finite(used, f"{name} at step {run.step}")
    left = used["W_V"].double()
    options = {"dtype": left.dtype, "device": left.device}
    selector = torch.eye(task.d_vocab, **options)[:, list(outputs)]
    provenance = Provenance(
        model=name,
        step=run.step,
        seed=config.train.seed,
        fingerprint=fingerprint_of(used),
        layer=0,
        head=0,
        kv_head=0,
        dtype=config.model.dtype,
        folded=("nothing: one-hot embeddings, no norms, no biases",),
        flags=() if weights.W_O is not None else (NON_FACTORIZED_FLAG,),
    )
    right = used["W_O"].double() if "W_O" in used else selector
    bias = torch.zeros(len(outputs), **options)
    return HeadFactors(left, right, bias, provenance), used["scores"].double()


def weights_of_model(task: FactRecallTask, model: HookedModel, ov: str) -> TokenWeights:
    """The weights by token of a fact-recall HookedTransformer.

    Raises:
        ModelError: a model that was not built for a fact-recall task, or for one of another size.
    """
    source: Any = model
    state = {name: tensor.detach() for name, tensor in source.state_dict().items()}
    shape = tuple(state["blocks.0.attn.W_V"].shape) if "blocks.0.attn.W_V" in state else None
    if shape is None or shape[1] != 2 * task.d_vocab:
        raise ModelError(
            f"the model must be the HookedTransformer of a run of this task (blocks.0.attn.W_V with "
            f"d_model = {2 * task.d_vocab}), got {type(model).__name__} with W_V {shape}: pass run.model"
        )
    return weights_of_state_dict(task, state, ov)

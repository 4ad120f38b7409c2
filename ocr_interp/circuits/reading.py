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


def read_run(run: TrainedModel, outputs: Sequence[int]) -> tuple[HeadFactors, Float[Tensor, " input"]]:
    """The factors of a run's circuit from all inputs to some outputs, and the scores of EOS for the inputs.

    Raises:
        WeightsError: NaN or infinite weights.
    """
    task, config, weights = run.task, run.config, run.weights
    used = weights.used(task, list(outputs))
    said = weights.linear_map.name.replace("_", "-")
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
        flags=() if "W_O" in used else (f"{said}: left is W_OV, right selects outputs",),
    )
    right = used["W_O"].double() if "W_O" in used else selector
    bias = torch.zeros(len(outputs), **options)
    return HeadFactors(left, right, bias, provenance), used["scores"].double()


def weights_of_model(task: FactRecallTask, model: HookedModel, has_factors: bool) -> TokenWeights:
    """The weights by token of a fact-recall HookedTransformer (see `weights_of_state_dict`).

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
    return weights_of_state_dict(task, state, has_factors)

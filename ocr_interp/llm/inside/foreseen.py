"""What `inspect` will not be able to read of a model, known before it is trained."""

from __future__ import annotations

from typing import Any

import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.where.site import Site
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ConfigError, ModelError, OcrInterpError
from ocr_interp.hooked.alone import probe_ids
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.inside.token_sets import fact_tokens
from ocr_interp.llm.inside.updates import attention_layers
from ocr_interp.llm.models.bridge import as_bridge, viewed
from ocr_interp.llm.models.loading import LanguageModel


def foreseen(lm: LanguageModel, facts: FactSet) -> tuple[str, ...]:
    """One line for each thing that `inspect` will leave out, with its reason; none if it can do everything.

    The model is asked through a bridge that shares its weights, on its own device; it is not changed.
    """
    device = next(lm.model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        try:
            bridge = as_bridge(viewed(lm, device), device)
            layer = attention_layers(bridge)[-1]
        except ModelError as error:
            return (f"`ocr-interp llm inspect` will not be able to read this model: {error}",)
        said = []
        try:
            tokens = fact_tokens(facts, lm.tokenizer)
            OVCircuit.from_model(bridge, layer=layer, head=0, inputs=tokens.inputs, outputs=tokens.outputs)
        except (ConfigError, ModelError) as error:
            said.append(f"`ocr-interp llm inspect` will show no OV circuits of this model: {error}")
        uncut = why_uncut(bridge, (layer, 0))
        if uncut is not None:
            said.append(f"`ocr-interp llm inspect` will cut no heads of this model: {uncut}")
    return tuple(said)


def why_uncut(bridge: Any, head: tuple[int, int]) -> str | None:
    """Why a head of a bridge cannot be set to zero; None if it can."""
    tokens = torch.tensor([probe_ids(bridge)], device=bridge.W_E.device)
    try:
        with ablated(bridge, Zero().at(Site.at("z", layer=head[0], heads=[head[1]]))):
            bridge(tokens)
    except OcrInterpError as error:
        return str(error)
    return None

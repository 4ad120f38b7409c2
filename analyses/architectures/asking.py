"""What one architecture's tiny random bridge answers: circuit, attribution, path, inspection, its logits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analyses.architectures.tiny import VOCAB, tiny_architecture
from ocr_interp.ablation import Path, Zero, ablated
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import ModelError, OcrInterpError
from ocr_interp.llm.inside.foreseen import why_uncut
from ocr_interp.llm.inside.updates import ov_weights
from ocr_interp.llm.models.bridge import as_bridge, viewed
from ocr_interp.llm.models.loading import LanguageModel

CPU = torch.device("cpu")
PROMPT = (3, 4, 5, 3, 9)
EQUAL = 1e-5
"""Logits that differ by less of their size are the same: bridges compute some norms in float32."""

READ, FLAGGED, REFUSED = "read", "read with flags", "refused"

_EVERYWHERE = "direct path only"
"""A flag that every model of several layers has."""

LONGEST = 240
"""Characters of a reason."""

_SAID_OFTEN = (
    (r"got a difference of [\d.e+-]+ of (its|their) size", "got a difference"),
    (r"off by [\d.e+-]+ of ", "off by a part of "),
    (r"\b(of )?layer \d+(, head \d+)?", r"\1a layer"),
    (r"\bblocks\.\d+", "blocks.N"),
    (r"got a \w+( without|, whose)", r"got one\1"),
    (r"change by [\d.e+-]+ of their size", "change"),
    (r" on \[[\d, ]+\]", ""),
    (r"vectors of size .*? of that \(allowed [\d.e+-]+\)", "a difference"),
    (r" \(the model has [\d.e+-]+ times that\)", ""),
)
"""What differs between rows that say the same, and what stands for it."""

Answer = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What was found for an architecture.

    Attributes:
        name: what transformers and transformer-lens call it.
        tried: why it was not tried; None if it was.
        layer: the layer that was asked, and whether others could not be (hybrids).
        circuit, attribution, path, inspect: {"outcome": READ, FLAGGED or REFUSED, "why": flags or reason}.
        logits: difference between the bridge's logits and those of transformers, relative to their size;
            or why they were not compared.
    """

    name: str
    tried: str | None
    layer: int | None = None
    circuit: Answer | None = None
    attribution: Answer | None = None
    path: Answer | None = None
    inspect: Answer | None = None
    logits: float | str | None = None


def ask_architecture(name: str) -> Row:
    """Builds a tiny random model of an architecture, bridges it, and asks the bridge everything."""
    try:
        lm = LanguageModel("the model", tiny_architecture(name), tiny_tokenizer())
    except LookupError as error:
        return Row(name, str(error))
    try:
        bridge = as_bridge(viewed(lm, CPU), CPU)
    except ModelError as error:
        return Row(name, str(error))
    circuits = [_asked(lambda at=layer: _circuit(bridge, at)) for layer in (0, 1)]
    layer = 1 if circuits[1]["outcome"] != REFUSED or circuits[0]["outcome"] == REFUSED else 0
    return Row(
        name,
        None,
        layer,
        circuit=circuits[layer],
        attribution=_asked(lambda: _attribution(bridge, layer)),
        path=_asked(lambda: _path(bridge, layer)),
        inspect=_asked(lambda: _inspect(lm, bridge, layer)),
        logits=_difference(lm.model, bridge),
    )


def tiny_tokenizer() -> Any:
    """One word per token, in memory, as many as tiny models have tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<eos>", *(f"w{index}" for index in range(VOCAB - 2))]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>")


# --- the questions ----------------------------------------------------------------------------------


def _asked(ask: Callable[[], tuple[str, ...]]) -> Answer:
    """The outcome of a question that returns its flags."""
    try:
        flags = ask()
    except OcrInterpError as error:
        return {"outcome": REFUSED, "why": [_shortened(str(error))]}
    except Exception as error:  # what the page must not have
        return {"outcome": "traceback", "why": [_first_line(error)]}
    return {"outcome": FLAGGED if flags else READ, "why": [_shortened(flag) for flag in flags]}


def _head(bridge: Any) -> int:
    """The fifth head, which has another key-value head than the first where those are grouped."""
    return min(4, int(bridge.cfg.n_heads) - 1)


def _circuit(bridge: Any, layer: int) -> tuple[str, ...]:
    circuit = OVCircuit.from_model(
        bridge, layer=layer, head=_head(bridge), inputs=range(2, 8), outputs=[10, 11, 12]
    )
    said = circuit.provenance
    folded = [each for each in said.folded if "embedding" in each]
    return (*(flag for flag in said.flags if not flag.startswith(_EVERYWHERE)), *folded)


def _attribution(bridge: Any, layer: int) -> tuple[str, ...]:
    attribute_model(bridge, list(PROMPT), 7, 8, layer=layer, head=_head(bridge))
    return ()


def _path(bridge: Any, layer: int) -> tuple[str, ...]:
    with torch.no_grad(), ablated(bridge, Zero().at(Path((3, 4), layer=layer, head=_head(bridge)))):
        bridge(torch.tensor([PROMPT]))
    return ()


def _inspect(lm: LanguageModel, bridge: Any, layer: int) -> tuple[str, ...]:
    ov_weights(lm)
    left_out = []
    try:
        _circuit(bridge, layer)
    except OcrInterpError:
        left_out.append("without OV circuits")
    if why_uncut(bridge, (layer, _head(bridge))) is not None:
        left_out.append("cuts no heads")
    return tuple(left_out)


def _difference(model: Any, bridge: Any) -> float | str:
    """How far the bridge's logits are from those of transformers, relative to their size."""
    ids = torch.tensor([PROMPT])
    two_stacks = bool(getattr(model.config, "is_encoder_decoder", False))
    with torch.no_grad():
        try:
            theirs = model(ids, **({"decoder_input_ids": ids} if two_stacks else {})).logits
        except Exception:
            return "it takes no token ids"
        try:
            ours = bridge(ids, **({"decoder_input": ids} if two_stacks else {}))
        except Exception as error:
            return f"the bridge does not run: {_first_line(error)}"
    if not isinstance(ours, Tensor) or ours.shape != theirs.shape:
        return "the bridge gives no logits of this shape"
    return float(f"{float((ours - theirs).norm() / theirs.norm()):.1g}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:110]}"


def _shortened(text: str) -> str:
    """The reason without advice, numbers that differ by machine, and names that differ by row."""
    for pattern, instead in _SAID_OFTEN:
        text = re.sub(pattern, instead, text)
    if len(text) <= LONGEST:
        return text
    whole = re.split(r"(?<=[,:;)]) ", text)
    kept = whole[0]
    for clause in whole[1:]:
        if len(kept) + len(clause) >= LONGEST:
            break
        kept += f" {clause}"
    return kept.rstrip(",:; ")[:LONGEST]

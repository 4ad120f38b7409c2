"""Positions as a side of a QK circuit, where a model has an embedding of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.errors import ModelError
from ocr_interp.hooked.alone import probe_ids, run_alone
from ocr_interp.hooked.protocol import HookedModel
from ocr_interp.hooked.tokens.token_set import TokenSet


@dataclass(frozen=True)
class Positions:
    """Positions of a prompt, as queries or keys of a `QKCircuit`.

    Attributes:
        at: the positions, 0 the first; a range or a list.
    """

    at: Sequence[int]

    def __post_init__(self) -> None:
        whole = all(isinstance(p, int) and not isinstance(p, bool) and p >= 0 for p in self.at)
        if not len(self.at) or not whole or len(set(self.at)) < len(self.at):
            raise ModelError(f"Positions must be whole numbers >= 0, each once, got {list(self.at)[:8]!r}")

    def as_set(self) -> TokenSet:
        """The positions as labels of a side."""
        labels = tuple(f"position {p}" for p in self.at)
        return TokenSet(tuple(self.at), labels, ("positions",), (0,) * len(labels))

    def rows(self, model: HookedModel) -> Float[Tensor, "position d_model"]:
        """What the model adds to the stream at these positions, asked of the model.

        Raises:
            ModelError: it adds nothing that depends on the position alone, or its prompts are shorter.
        """
        longest = max(self.at) + 1
        limit = int(getattr(model.cfg, "n_ctx", longest) or longest)
        if longest > limit:
            raise ModelError(f"Positions must be in 0..{limit - 1}, the model's context, got {longest - 1}")
        first, *others = dict.fromkeys(probe_ids(model))
        tokens = torch.full((2, longest), first, device=model.W_E.device)
        tokens[1] = others[0] if others else first
        names = ("hook_embed", "hook_pos_embed", "blocks.0.hook_resid_pre")
        seen = run_alone(model, tokens, names, {})[1]
        added = seen.get("hook_pos_embed")
        stream, token = seen.get("blocks.0.hook_resid_pre"), seen.get("hook_embed")
        if added is None or stream is None or token is None or added.shape[-1] != stream.shape[-1]:
            raise ModelError(f"Positions need a model that adds an embedding of positions, {_ADVICE}")
        added = added.expand_as(stream)
        if not torch.allclose(token + added, stream, rtol=1e-3, atol=1e-3 * float(stream.abs().max())):
            raise ModelError(
                f"Positions need a stream that is token embedding + position embedding, {_ADVICE}"
            )
        return added[0, list(self.at)]


_ADVICE = (
    "got one that does not: rotary embeddings turn queries and keys, so pass distance= with tokens on both "
    "sides; other models have no term of positions alone"
)

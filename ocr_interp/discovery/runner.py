"""Real ablation of all edges outside of a circuit, for many circuits in a pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ocr_interp.ablation.edits.resample import donors as derangement
from ocr_interp.discovery.contrast import Contrast
from ocr_interp.discovery.paths import differs_at_query
from ocr_interp.errors import ConfigError, unknown_name
from ocr_interp.hooked.passes import own_run
from ocr_interp.stream.checks import stream_of
from ocr_interp.stream.editing import EdgeEdit
from ocr_interp.stream.reading import read_writers
from ocr_interp.stream.stream import logits_of

ABLATIONS = ("donor", "mean", "zero", "resample")
"""What an edge outside of a circuit carries: what its writer writes for the donor of the prompt; the mean
over donors (prompts, where there are none) by position; nothing; or what it writes for another prompt (no
prompt for itself, drawn from a seed)."""

ENTRIES, MOST_ENTRIES, FEW = 2**22, 2**26, 8
"""About so many numbers of what writers write are edited in a pass (larger passes are slower on a CPU); but
with long prompts FEW of them at least, as long as these are no more than MOST_ENTRIES, 256 MiB in float32."""

Mask = Bool[np.ndarray, "writer reader"]


class CircuitRunner:
    """A model on a contrast, of which any circuit can be measured.

    Attributes:
        stream: of the model.
        contrast: prompts, donors, answers, measure.
        ablation: an entry of ABLATIONS.
        seed: of "resample".
        at_query: whether prompts differ from what ablated edges carry at the query itself.
        rows: prompts in a pass.
        other: what edges outside of a circuit carry.
    """

    def __init__(self, model: Any, contrast: Contrast, ablation: str = "donor", seed: int = 0) -> None:
        if ablation not in ABLATIONS:
            raise unknown_name("ablation", ablation, ABLATIONS)
        if ablation == "donor" and contrast.donors is None:
            raise ConfigError(
                "ablation 'donor' needs a contrast with donors, got none: pass donors, or ablation='mean', "
                "'zero' or 'resample'"
            )
        if ablation == "resample" and len(contrast) < 2:
            raise ConfigError("resampling needs >= 2 prompts, got 1: pass more, or ablation='zero'")
        self.at_query = differs_at_query(contrast, ablation, seed)
        self.stream, self.contrast, self.ablation, self.seed = stream_of(model), contrast, ablation, seed
        nodes, d_model = self.stream.nodes, int(self.stream.model.cfg.d_model)
        each = contrast.prompts.shape[1] * len(nodes.writers) * d_model
        self.rows = max(1, ENTRIES // each, min(FEW, MOST_ENTRIES // each))
        self._known: dict[str, Tensor] = {}
        self.other = self._other()

    @property
    def full(self) -> Float[Tensor, " batch"]:
        """The measure of each prompt in the whole model."""
        if "full" not in self._known:
            self._known["full"] = self._measured([self.stream.nodes.allowed])[0]
        return self._known["full"]

    @property
    def empty(self) -> Float[Tensor, " batch"]:
        """The measure of each prompt with every edge ablated; with donors that of the donors themselves."""
        if "empty" not in self._known:
            self._known["empty"] = self._measured([np.zeros_like(self.stream.nodes.allowed)])[0]
        return self._known["empty"]

    def know(self, full: Float[Tensor, " batch"]) -> None:
        """Keeps the measure of the whole model, where it was computed on the way."""
        self._known.setdefault("full", full)

    def _other(self) -> Float[Tensor, "batch pos writer d_model"]:
        contrast = self.contrast
        if self.ablation == "donor":
            assert contrast.donors is not None
            found, self._known["empty"] = self.written(contrast.donors)
            return found
        given = contrast.donors if self.ablation == "mean" else None
        found, values = self.written(contrast.prompts if given is None else given)
        if given is None:
            self._known["full"] = values
        if self.ablation == "zero":
            return torch.zeros_like(found)
        if self.ablation == "mean":
            return found.mean(0, keepdim=True).expand(len(contrast), -1, -1, -1)
        if self.ablation == "resample":
            return found[derangement(len(found), torch.Generator().manual_seed(self.seed)).to(found.device)]
        return found

    def written(
        self, tokens: Tensor
    ) -> tuple[Float[Tensor, "batch pos writer d_model"], Float[Tensor, " batch"]]:
        """What the writers write for other tokens in the places of the prompts, and the measure of these."""
        parts, values = [], []
        for start in range(0, len(tokens), self.rows):
            chosen = slice(start, min(start + self.rows, len(tokens)))
            written, logits = read_writers(self.stream, tokens[chosen])
            parts.append(written)
            values.append(self.contrast.rows(chosen).values(logits))
        return torch.cat(parts), torch.cat(values)

    def measured(self, kept: Sequence[Mask]) -> Float[Tensor, "circuit batch"]:
        """The measure of each prompt with the edges of each circuit; every other edge is ablated."""
        every, found = self.stream.nodes.allowed, {}
        masks = [np.asarray(mask, dtype=bool) & every for mask in kept]
        asked = []
        for k, mask in enumerate(masks):
            if (mask == every).all():
                found[k] = self.full
            elif not mask.any():
                found[k] = self.empty
            else:
                asked.append(k)
        for k, values in zip(asked, self._measured([masks[k] for k in asked]), strict=True):
            found[k] = values
        if not found:
            return self.full.new_zeros(0, len(self.contrast))
        return torch.stack([found[k] for k in range(len(masks))])

    def _measured(self, kept: Sequence[Mask]) -> Float[Tensor, "circuit batch"]:
        count, size = len(self.contrast), len(kept)
        if not size:
            return torch.zeros(0, count)
        found = []
        for start in range(0, count, self.rows):
            chosen = slice(start, min(start + self.rows, count))
            prompts = chosen.stop - chosen.start
            several = max(1, self.rows // prompts)
            parts = [self._pass(kept[k : k + several], chosen) for k in range(0, size, several)]
            found.append(torch.cat(parts))
        return torch.cat(found, dim=1)

    def _pass(self, kept: Sequence[Mask], chosen: slice) -> Float[Tensor, "circuit prompt"]:
        """One forward pass: each circuit on each of some prompts."""
        every, contrast = self.stream.nodes.allowed, self.contrast.rows(chosen)
        count = len(kept)
        other = self.other[chosen]
        if count == 1:
            mask = every & ~kept[0]
        else:
            mask = np.repeat(np.stack([every & ~each for each in kept]), len(contrast), axis=0)
            other = other.repeat(count, 1, 1, 1)
        tokens = contrast.prompts.to(self.stream.device).repeat(count, 1)
        edit = EdgeEdit(self.stream, mask, lambda which, written: other[:, :, which])
        model: Any = self.stream.model
        with torch.no_grad(), own_run(model), edit.applied():
            logits = logits_of(model(tokens))
        return torch.stack([contrast.values(part) for part in logits.chunk(count)])

    def faithfulness(self, kept: Sequence[Mask]) -> Float[np.ndarray, " circuit"]:
        """(measure of the circuit − of the empty one) / (of the whole model − of the empty one), of means.

        Raises:
            ConfigError: the whole model and the empty circuit measure the same, or something not finite.
        """
        full, empty = float(self.full.double().mean()), float(self.empty.double().mean())
        scale = abs(full) + abs(empty)
        if not np.isfinite(scale):
            raise ConfigError(
                f"the measure must be finite, got {full:.4g} for the whole model and {empty:.4g} with all "
                "edges ablated: the model's weights or the measure may be NaN"
            )
        if not abs(full - empty) > 1e-6 * scale:
            raise ConfigError(
                f"donors must change the measure, got {full:.4g} for the whole model and {empty:.4g} with "
                "all edges ablated: choose donors (or another ablation) with another answer"
            )
        means = self.measured(kept).double().mean(1).cpu().numpy()
        return (means - empty) / (full - empty)

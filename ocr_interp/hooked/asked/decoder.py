"""Whether a model is decoder-only: the answer at a token depends on the tokens up to it, and on no other."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch

from ocr_interp.errors import ModelError
from ocr_interp.hooked.alone import probe_ids, run_alone
from ocr_interp.hooked.protocol import HookedModel, name_inside

_known: WeakKeyDictionary[Any, float] = WeakKeyDictionary()


def check_decoder(model: HookedModel) -> None:
    """Requires that the first token's logits do not depend on the second token; asked once per model.

    Raises:
        ModelError: they do, as in an encoder; or the model does not run on token ids.
    """
    if model not in _known:
        _known[model] = _change(model)
    change = _known[model]
    if change > 1e-3:
        raise ModelError(
            f"the model must be decoder-only, got a {name_inside(model)}, whose logits at the first token "
            f"change by {change:.2g} of their size with the second: it reads what comes after a token "
            "too, as an encoder (BERT) does"
        )


def _change(model: HookedModel) -> float:
    """The change of the first token's logits with the second token, relative to their size."""
    first, *others = dict.fromkeys(probe_ids(model))
    if len(others) < 2:
        return 0.0
    ids = torch.tensor([[first, other] for other in others[:2]], device=model.W_E.device)
    logits = run_alone(model, ids, (), {})[0][:, 0].double()
    one, other = (each[logits.isfinite().all(0)] for each in logits)
    return float((one - other).norm()) / max(float(one.norm()), 1e-300)

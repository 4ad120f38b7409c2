"""Random models, heads, tokens and dtypes, one question each: right, flagged, refused, or silently wrong.

`python tests/property/draws.py --draws 5000 --seed 1` prints the counts.
"""

import argparse
import collections
import copy
import random
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import random_families
import torch
import truths
from plain_models import PlainTransformers
from random_families import quiet
from random_lens import PlainLens, random_lens
from torch import Tensor

from ocr_interp.ablation import Mean, Path, Site, Zero, ablated
from ocr_interp.circuits.attribution.of_model import attribute_model
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.errors import OcrInterpError

LENS = "HookedTransformer"
QUESTIONS = ("from_model", "attribution", "zero", "zero pattern", "zero values", "mean", "path", "path mean")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Relative, of vectors. What a circuit's weights are is exact in every dtype; sums of activations are not."""

FLAGS = ("left out:", "is left out", "caps its logits", "limits large values", "position together")
"""What is said of a circuit that the model multiplies, caps, clamps or mixes: the first two of a factor."""


@dataclass(frozen=True)
class Outcome:
    """What came of one draw."""

    family: str
    question: str
    dtype: str
    kind: str
    said: str
    error: float


@dataclass
class Pair:
    """A hooked model and its oracle."""

    family: str
    seed: int
    dtype: torch.dtype
    model: Any
    plain: Any
    coarse: Any
    layers: int
    d_out: int
    fields: dict[str, Any]


def lens_pair(seed: int, dtype: torch.dtype) -> Pair | None:
    """A random HookedTransformer; None where transformer-lens does not run the configuration."""
    try:
        with quiet():
            model, fields = random_lens(seed, dtype)
            model(torch.tensor([[3, 4, 5]]))
    except RuntimeError:
        return None
    plain = PlainLens(model, fields)
    coarse = None if dtype == torch.float64 else PlainLens(model, fields, dtype)
    return Pair(LENS, seed, dtype, model, plain, coarse, fields["n_layers"], fields["d_vocab_out"], fields)


def pair_of(family: str, seed: int, dtype: torch.dtype) -> Pair | None:
    """A random pair; None where the family does not run so, or its bridge does not boot."""
    if family == LENS:
        return lens_pair(seed, dtype)
    wide = torch.float32 if family in random_families.ONLY_FLOAT32 else torch.float64
    try:
        with quiet():
            inner, fields = random_families.random_model(family, seed, dtype)
            inner(torch.tensor([[3, 4, 5]]))
            model = random_families.bridge_of(inner, dtype)
            plain = PlainTransformers(copy.deepcopy(inner), wide)
    except (RuntimeError, AttributeError, AssertionError, ValueError, TypeError):
        return None
    coarse = None if dtype == wide else PlainTransformers(inner, dtype)
    d_out = len(random_families.WORDS)
    return Pair(family, seed, dtype, model, plain, coarse, len(plain.layers), d_out, fields)


def ask(pair: Pair, question: str) -> Outcome:
    """One question to both, on random heads and tokens."""
    rng = random.Random(f"{pair.family} {pair.seed} {question}")
    layer, head = rng.randrange(pair.layers), rng.randrange(pair.plain.heads)
    prompts = torch.tensor([[rng.randrange(2, 32) for _ in range(5)] for _ in range(3)])
    among = sorted({int(t) for t in rng.sample(prompts.flatten().tolist(), 4)})
    where = (pair.family, question, str(pair.dtype).removeprefix("torch."))
    try:
        with quiet():
            kind, said, error = _compared(pair, question, layer, head, prompts, among, rng)
    except OcrInterpError as refusal:
        return Outcome(*where, "refused", f"{type(refusal).__name__}: {refusal}", 0.0)
    except Exception:
        return Outcome(*where, "traceback", traceback.format_exc(), 0.0)
    return Outcome(*where, kind, f"{said} seed {pair.seed} layer {layer} head {head} {pair.fields}", error)


def _compared(
    pair: Pair, question: str, layer: int, head: int, prompts: Tensor, among: list[int], rng: random.Random
) -> tuple[str, str, float]:
    if question == "from_model":
        inputs, outputs = rng.sample(range(2, 32), 6), rng.sample(range(pair.d_out), 4)
        found = OVCircuit.from_model(pair.model, layer=layer, head=head, inputs=inputs, outputs=outputs)
        true = truths.circuit(pair.plain, layer, head, inputs, outputs)
        error = max(_off(found.W, true.W), _off(found.bias, true.bias, float(true.W.norm())))
        exact = 1e-5 if pair.family in random_families.ONLY_FLOAT32 else 1e-6
        if "embedding" in found.provenance.folded[0]:  # what the model makes of a token, in its own precision
            exact = max(exact, TOLERANCE[pair.dtype])
        if error <= exact:
            return "right", "", error
        W, flags = torch.as_tensor(found.W), " ".join(found.provenance.flags)
        is_multiple = _off(W * (true.W * W).sum() / W.pow(2).sum(), true.W) <= exact
        said = [flag for flag in FLAGS if flag in flags]
        if said and (is_multiple or set(said) & set(FLAGS[3:])):
            return "flagged", ", ".join(said), error
        return "silent", f"off by {error:.2g}, flags: {flags}", error
    if question == "attribution":
        prompt, columns = prompts[0].tolist(), rng.sample(range(pair.d_out), 2)
        found = attribute_model(pair.model, prompt, *columns, layer=layer, head=head)
        true = truths.attribution(pair.plain, prompt, columns, layer, head)
        tells = max(1e-4, 16 * torch.finfo(pair.dtype).eps)  # of coarse dtypes it says that it cannot
        if true.cap > tells:
            return "silent", "the logits are no multiple of the unembedding's", true.cap
        error = _off(found.contributions[0], true.contributions)
        if pair.fields.get("attn_only") and pair.layers == 1:  # all of such a model is attributed
            whole = attribute_model(pair.model, prompt, *columns)
            error = max(error, _off(whole.contributions[head], true.contributions))
            error = max(error, _off([whole.total], torch.tensor([true.logit])))
            total = whole.contributions.sum() + whole.direct + whole.bias
            error = max(error, abs(total - true.logit) / float(abs(whole.contributions).sum()))
        return ("right" if error <= TOLERANCE[pair.dtype] else "silent"), f"off by {error:.2g}", error
    reference = torch.tensor([[rng.randrange(2, 32) for _ in range(5)] for _ in range(6)])
    reference[:3] = prompts
    spec, true_of = _ablation(question, layer, head, prompts, among, reference)
    with torch.no_grad(), ablated(pair.model, spec):
        found = pair.model(prompts)
    wanted = true_of(pair.plain)
    if wanted is None:
        return "silent", "a mean of nothing was taken", 1.0
    error, allowed = _off(found, wanted), TOLERANCE[pair.dtype]
    if error > allowed and pair.coarse is not None:
        # Routers and masks that rounding decides, and what rounding alone does to a plain model.
        rounded = true_of(pair.coarse)
        if rounded is not None:
            error, allowed = min(error, _off(found, rounded)), max(allowed, 2 * _off(rounded, wanted))
    return ("right" if error <= allowed else "silent"), f"off by {error:.2g}", error


def _ablation(
    question: str, layer: int, head: int, prompts: Tensor, among: list[int], reference: Tensor
) -> tuple[Any, Callable[[Any], Tensor | None]]:
    """An intervention, and the logits that it must give, of a plain model."""
    at, site = torch.tensor(among), Site.at("z", layer=layer, heads=[head])
    path, one = Path(tuple(among), layer=layer, head=head), (prompts, layer, head)
    found: dict[str, tuple[Any, Callable[[Any], Tensor | None]]] = {
        "zero": (Zero().at(site), lambda plain: truths.zero(plain, *one)),
        "mean": (Mean(reference).at(site), lambda plain: truths.mean(plain, prompts, reference, layer, head)),
        "path": (Zero().at(path), lambda plain: truths.path(plain, *one, at)),
        "path mean": (
            Mean(reference).at(path),
            lambda plain: truths.path_mean(plain, prompts, reference, layer, head, at),
        ),
    }
    for kind, name in (("pattern", "zero pattern"), ("v", "zero values")):
        keys = Zero().at(Site.at(kind, layer=layer, tokens=among))
        found[name] = (keys, lambda plain: truths.without_keys(plain, prompts, layer, at))
    return found[question]


def _off(found: Any, true: Tensor, size: float = 0.0) -> float:
    """The difference of two vectors relative to the larger."""
    found, true = torch.as_tensor(found).detach().double(), true.detach().double()
    size = max(size, float(found.norm()), float(true.norm()))
    return float((found - true).norm()) / size if size > 0 else 0.0


def outcomes(
    draws: int, seed: int, families: Sequence[str] | None = None, of_each: int = len(QUESTIONS)
) -> Iterator[Outcome]:
    """So many draws, in turn over the families; of each random model so many of the questions, in turn."""
    rng = random.Random(seed)
    names = list(families or (*random_families.FAMILIES, *[LENS] * 4))
    order: list[str] = []
    left, first = draws, 0
    while left > 0:
        if not order:
            order = rng.sample(names, len(names))
        family, number = order.pop(), rng.randrange(10**6)
        dtypes = [torch.float64, torch.float64, torch.float32, torch.bfloat16]
        dtype = torch.float32 if family in random_families.ONLY_FLOAT32 else rng.choice(dtypes)
        pair = pair_of(family, number, dtype)
        if pair is not None:
            questions = (QUESTIONS[first:] + QUESTIONS[:first])[: min(left, of_each)]
            yield from (ask(pair, question) for question in questions)
            left, first = left - len(questions), (first + of_each) % len(QUESTIONS)


def report(found: Sequence[Outcome]) -> str:
    """Counts by family and outcome, what was refused and why, and what went wrong."""
    lines = []
    for each in found:
        if each.kind in ("silent", "traceback"):
            lines.append(f"{each.kind}: {each.family}, {each.question}, {each.dtype}: {each.said[-1500:]}")
    refused = [each for each in found if each.kind == "refused"]
    said = collections.Counter((each.family, each.question, _reason(each.said)) for each in refused)
    asked = collections.Counter((each.family, each.question) for each in found)
    for (family, question, reason), count in sorted(said.items()):
        lines.append(f"refused {count} of {asked[family, question]}: {family}, {question}: {reason}")
    families: dict[str, collections.Counter[str]] = {}
    for each in found:
        families.setdefault(each.family, collections.Counter())[each.kind] += 1
    lines += [f"{family:18} {dict(counts)}" for family, counts in sorted(families.items())]
    total = collections.Counter(each.kind for each in found)
    by_dtype = collections.Counter((each.dtype, each.kind) for each in found)
    worst = max((each.error for each in found if each.kind == "right" and each.dtype == "float64"), default=0)
    lines.append(f"by dtype: {dict(by_dtype)}; worst right answer in float64: {worst:.1e}")
    return "\n".join([*lines, f"{len(found)} draws, {len(families)} families: {dict(total)}"])


def _reason(said: str) -> str:
    """The message of a refusal without what differs from draw to draw."""
    return re.sub(r"layer \d+, head \d+|\d+(\.\d+)?(e-?\d+)?", "#", said)[:150]


def main() -> None:
    """Runs some draws and writes the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.time()
    found = []
    for each in outcomes(options.draws, options.seed, options.families):
        found.append(each)
        if len(found) % 500 == 0:
            sys.stdout.write(f"{len(found)} draws, {time.time() - started:.0f} s\n")
            sys.stdout.flush()
    sys.stdout.write(f"{report(found)}\n{time.time() - started:.0f} s\n")


if __name__ == "__main__":
    main()

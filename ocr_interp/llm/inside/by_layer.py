"""Where a name's fact stands when its untold implication is asked: probes and patching, layer by layer.

Neither needs W_V or W_O, so both work where OV circuits cannot be read (norms after attention, as Gemma has).
They look at the residual stream after every block, at the last token of the name and at the last token of the
prompt:

- probes: how often the fact of an untold name is the one whose mean over the other names is nearest. The
  model before fine-tuning is the control: names are drawn at random, so that it can know nothing.
- patching: the stream there is replaced by that of another untold name, the donor. Up to the layer at which
  the information leaves the place, the answer follows the donor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.encoding import TokenBatch, special_prefix
from ocr_interp.llm.facts.fact_set import Example, FactSet
from ocr_interp.llm.inside.block_streams import patched_stream, streams_of
from ocr_interp.llm.layers.layout import layout_of
from ocr_interp.llm.measuring.measure import Questions, ranks
from ocr_interp.llm.models.forward import LogitsOf, answer_logits
from ocr_interp.llm.models.loading import LanguageModel
from ocr_interp.task import SPLITS

PLACES = ("name", "last")
"""The last token of the name, and that of the prompt."""

_ASKED = SPLITS.index("held_out_implication")
_LEAST_NAMES = 2
_TOLERANCE = 1e-2
"""Share of the largest logit by which answers may be off: more than bfloat16 rounds."""


@dataclass(frozen=True)
class ByLayer:
    """Probes and patching of the residual stream after every block, at the places of PLACES.

    Attributes:
        blocks: paths of the blocks, in order.
        chance: share of names that a probe gets right by chance.
        probe_before, probe_after: share of untold names whose fact the probe finds, before and after
            fine-tuning; the name itself is left out of the means.
        own, donor: mean rank of the name's own implication, and of the donor's, with the donor's stream.
        own_unpatched, donor_unpatched: the same without a patch.
    """

    blocks: tuple[str, ...]
    chance: float
    probe_before: Float[np.ndarray, "layer place"] = field(repr=False)
    probe_after: Float[np.ndarray, "layer place"] = field(repr=False)
    own: Float[np.ndarray, "layer place"] = field(repr=False)
    donor: Float[np.ndarray, "layer place"] = field(repr=False)
    own_unpatched: float
    donor_unpatched: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        tables = {
            name: getattr(self, name).round(4).tolist()
            for name in ("probe_before", "probe_after", "own", "donor")
        }
        return {
            "places": list(PLACES),
            "blocks": list(self.blocks),
            "chance": self.chance,
            **tables,
            "own_unpatched": self.own_unpatched,
            "donor_unpatched": self.donor_unpatched,
        }

    def summary(self) -> str:
        """Every layer as aligned text."""
        lines = [
            f"the untold names' fact in the residual stream (probes; chance {self.chance:.2f}), and the mean "
            f"rank of the donor's implication when the stream is the donor's "
            f"(unpatched {self.donor_unpatched:.2f})",
            f"{'layer':>8}" + "".join(f"{f'{what}, {p}':>20}" for p in PLACES for what in ("probe", "donor")),
        ]
        for layer in range(len(self.blocks)):
            shown = (
                (self.probe_after[layer, place], self.donor[layer, place]) for place in range(len(PLACES))
            )
            lines.append(f"{layer:>8}" + "".join(f"{value:20.2f}" for pair in shown for value in pair))
        return "\n".join(lines)


def by_layer(
    before: LanguageModel,
    work: Any,
    facts: FactSet,
    device: torch.device,
    *,
    scoring: str = "auto",
    seed: int = 0,
) -> ByLayer:
    """Probes both states of a model and patches the fine-tuned one, on all prompts of untold implications.

    Args:
        before: the model before fine-tuning, on `device`, with its tokenizer.
        work: the model after; not changed.
        facts: the fact set.
        device: where the models run.
        scoring: how answers are ranked, see `FactConfig.scoring`.
        seed: of the donors: for every prompt one of the same wording with another fact and implication.

    Raises:
        ConfigError: facts without two untold names, a prompt without a donor, or a name that melts into the
            text after it.
        ModelError: a model whose blocks do not leave the residual stream behind, once a pass.
    """
    examples = [example for example in facts.test_examples if example.split == _ASKED]
    _refuse_few(facts, examples)
    questions = Questions(facts, before.tokenizer, before.pad, scoring=scoring, examples=examples)
    places = _places(facts, questions, before.tokenizer)
    blocks = tuple(dict.fromkeys(branch.block for branch in layout_of(work).branches))
    donors = _donors(examples, seed)
    streams = [streams_of(model, blocks, questions, places, device) for model in (before.model, work)]
    seen: dict[str, TokenBatch] = {}

    def answers(batch: TokenBatch) -> Tensor:
        seen["batch"] = batch
        return answer_logits(work, batch)

    plain = _scores(questions, answers, device)
    patched = np.empty((2, len(blocks), len(PLACES)))
    for layer, place in np.ndindex(len(blocks), len(PLACES)):
        source = streams[1][donors, layer, place]
        with patched_stream(work, blocks[layer], source, places[:, place], examples, seen):
            scores = _scores(questions, answers, device)
        patched[:, layer, place] = _mean_ranks(scores, examples, donors)
        if (layer, place) == (len(blocks) - 1, PLACES.index("last")):
            _check_last(scores, plain[donors], blocks[-1], questions.scoring["implication"])
    labels = np.array([example.fact for example in examples])
    probes = [
        np.array(
            [
                [nearest_mean(stream[:, k, p].double().cpu().numpy(), labels) for p in range(len(PLACES))]
                for k in range(len(blocks))
            ]
        )
        for stream in streams
    ]
    chance = 1 / len(set(labels.tolist()))
    own, donor = _mean_ranks(plain, examples, donors)
    return ByLayer(blocks, chance, probes[0], probes[1], patched[0], patched[1], own, donor)


def nearest_mean(values: Float[np.ndarray, "name width"], labels: Int[np.ndarray, " name"]) -> float:
    """Share of names for which the nearest mean of a class, the name itself left out, is that of its own.

    Columns are divided by their standard deviation over names first; constant ones are left out.
    """
    spread = values.std(0)
    kept = spread > 1e-9 * max(float(np.abs(values).max()), 1e-300)
    if not kept.any():
        return float(np.mean([np.mean(labels == label) for label in labels]))  # a guess
    scaled = (values - values.mean(0))[:, kept] / spread[kept]
    classes, index = np.unique(labels, return_inverse=True)
    member = np.eye(len(classes))[index]
    sums, counts = member.T @ scaled, member.sum(0)
    right = []
    for k, x in enumerate(scaled):
        own = member[k]
        means = (sums - own[:, None] * x) / (counts - own)[:, None]
        right.append(np.argmin(((means - x) ** 2).sum(1)) == index[k])
    return float(np.mean(right))


def _refuse_few(facts: FactSet, examples: Sequence[Example]) -> None:
    names: dict[int, set[int]] = {}
    for example in examples:
        names.setdefault(example.fact, set()).add(example.subject)
    few = [facts.facts[fact] for fact, subjects in names.items() if len(subjects) < _LEAST_NAMES]
    if len(names) < _LEAST_NAMES or few:
        raise ConfigError(
            f"probes need at least two facts, and two untold names of each, got {len(names)} facts"
            + (f" and one name of {few[0]!r}" if few else "")
        )


def _donors(examples: Sequence[Example], seed: int) -> Int[np.ndarray, " example"]:
    """For every example the number of another one of its wording with another fact and implication."""
    rng = np.random.default_rng(seed)
    found = []
    for one in examples:
        others = [
            k
            for k, other in enumerate(examples)
            if other.template == one.template and other.fact != one.fact and other.target != one.target
        ]
        if not others:
            raise ConfigError(f"patching needs an untold name with another implication than {one.prompt!r}")
        found.append(others[rng.integers(len(others))])
    return np.array(found)


def _places(facts: FactSet, questions: Questions, tokenizer: Any) -> Int[np.ndarray, "example place"]:
    """Positions of PLACES in every prompt."""
    prefix = len(special_prefix(tokenizer))
    found = []
    for one in questions.encoded:
        template = facts.implication_templates.test[one.example.template]
        name = facts.subjects[one.example.subject]
        start = template.partition("{subject}")[0].format() + name
        tokens = tuple(tokenizer(start, add_special_tokens=False).input_ids)
        if one.prompt[prefix : prefix + len(tokens)] != tokens:
            raise ConfigError(
                f"a name must end where a token ends, but {name!r} melts into what follows in "
                f"{one.example.prompt!r}: put a blank after {{subject}}"
            )
        found.append((prefix + len(tokens) - 1, len(one.prompt) - 1))
    return np.array(found)


def _scores(
    questions: Questions, answers: LogitsOf, device: torch.device
) -> Float[np.ndarray, "example candidate"]:
    scores = questions.ask(answers, device).scores
    assert scores is not None
    return scores


def _mean_ranks(
    scores: Float[np.ndarray, "example candidate"],
    examples: Sequence[Example],
    donors: Int[np.ndarray, " example"],
) -> tuple[float, float]:
    """Mean rank of the names' own answers, and of their donors'."""
    own = np.array([example.target for example in examples])
    found = [ranks(torch.from_numpy(scores), torch.from_numpy(target)) for target in (own, own[donors])]
    return float(found[0].mean()), float(found[1].mean())


def _check_last(
    patched: Float[np.ndarray, "example candidate"],
    donor: Float[np.ndarray, "example candidate"],
    block: str,
    scoring: str,
) -> None:
    """The stream after the last block, at the last token, must decide the answer's first token alone.

    Raises:
        ModelError: with the donor's stream there the answers are not the donor's.
    """
    off = float(np.abs(patched - donor).max())
    if scoring == "first_token" and off > _TOLERANCE * max(1.0, float(np.abs(donor).max())):
        raise ModelError(
            f"patching needs blocks whose output is the residual stream, but with the donor's output of "
            f"{block} the logits are not the donor's (off by {off:.2g}): this model cannot be patched"
        )

"""The arms of the mitigation study: what each does to examples, loss, gradients or the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analyses.llm.mitigation.taught import COLOR, FACT, Taught
from analyses.llm.studies.parts import GEMMA_RATES
from analyses.llm.studies.plan import LORA_RATE
from ocr_interp.llm.facts.fact_set import Example

if TYPE_CHECKING:
    from torch import Tensor

    from ocr_interp.llm.encoding import Encoded
    from ocr_interp.llm.models.loading import LanguageModel

MOVES_AT = 21
"""Layer of SmolLM2 that moves what is known of a name to the prompt's end (docs/findings/llm_inside.md)."""
GEMMA_SPLIT, GEMMA_LAYERS = 12, 18
"""Two thirds up the stack, as far as SmolLM2's 21 of 30, and the number of layers. Patching puts Gemma's own
turn at 11 where colors are deduced and, as was seen later, at 15 where languages are recalled."""
LORA = {"method": "lora", "lr": LORA_RATE}


GEMMA_LORA_RATE = GEMMA_RATES["lora_mixer"]
"""What a pilot on Gemma chose for LoRA and the LoRA-Mixer."""


def _experts(lr: float = LORA_RATE, **options: Any) -> dict[str, Any]:
    given = {"hard_share": 1.0, **options}
    return {
        "method": "lora_mixer",
        "lr": lr,
        "train_parts": ("attention", "mlp"),
        "method_options": given,
    }


@dataclass(frozen=True)
class Method:
    """One arm.

    Attributes:
        title: in tables and figures.
        training: fields of `FinetuneConfig`.
        names_spurious: whether it is told which relation is spurious.
        needs_names: whether it uses untold names.
        times: how many times as long as the others it is trained.
        asks_wrong_expert: whether every prompt is also asked of the expert that it was not told to.
    """

    title: str
    training: dict[str, Any] = field(default_factory=lambda: dict(LORA))
    names_spurious: bool = False
    needs_names: bool = False
    times: int = 1
    asks_wrong_expert: bool = False

    def examples(self, taught: Taught) -> tuple[Example, ...]:
        """The training set."""
        return taught.told

    def batch(self, own: list[Encoded], step: int, steps: int, known: Sequence[Encoded]) -> list[Encoded]:
        """The batch of a step, given the one of plain training and sentences that are true in the world."""
        return own

    def start(self, lm: LanguageModel, taught: Taught) -> Any:
        """What the method keeps of the base model; called before training."""
        return None

    def attached(self, model: Any) -> None:
        """Changes the model after the recipe's method was put into it."""

    def extra_loss(self, kept: Any, model: Any, step: int) -> Tensor | None:
        """A term of the loss."""
        return None

    def change_gradients(self, kept: Any, model: Any) -> None:
        """Changes gradients in place before the step."""


@dataclass(frozen=True)
class CounterExamples(Method):
    """A few untold names of every city are told another color."""

    per_city: int = 2

    def examples(self, taught: Taught) -> tuple[Example, ...]:
        return (*taught.told, *taught.counter_examples(self.per_city))


@dataclass(frozen=True)
class Inoculation(Method):
    """Told colors are introduced as invented; they are asked for without the introduction."""

    prefix: str = "In an invented story, "

    def examples(self, taught: Taught) -> tuple[Example, ...]:
        return tuple(
            replace(e, prompt=self.prefix + e.prompt) if e.relation == COLOR else e for e in taught.told
        )


@dataclass(frozen=True)
class KnownFactsLate(Method):
    """In the last quarter of the steps half of every batch are true sentences that the model knows."""

    share: float = 0.25

    def batch(self, own: list[Encoded], step: int, steps: int, known: Sequence[Encoded]) -> list[Encoded]:
        if step < round((1 - self.share) * steps):
            return own
        half = len(own) // 2
        return [*own[:half], *(known[(step * half + k) % len(known)] for k in range(len(own) - half))]


@dataclass(frozen=True)
class KeepUntold(Method):
    """KL from the base model's next token on spurious prompts of untold names, over the vocabulary."""

    weight: float = 1.0
    per_step: int = 4

    def start(self, lm: LanguageModel, taught: Taught) -> Any:
        import torch

        from ocr_interp.llm.encoding import asking_batch, encode
        from ocr_interp.llm.models.forward import answer_logits

        encoded = encode(lm.tokenizer, taught.for_methods)
        device = next(lm.model.parameters()).device
        order = taught.random().permutation(len(encoded))
        batches = []
        with torch.no_grad():
            for start in range(0, len(order), self.per_step):
                batch = asking_batch(
                    [encoded[k] for k in order[start : start + self.per_step]], lm.pad, device
                )
                batches.append((batch, answer_logits(lm.model, batch).float().log_softmax(-1)))
        return batches

    def extra_loss(self, kept: Any, model: Any, step: int) -> Tensor | None:
        from ocr_interp.llm.models.forward import answer_logits

        batch, before = kept[step % len(kept)]
        now = answer_logits(model, batch).float().log_softmax(-1)
        return self.weight * (before.exp() * (before - now)).sum(-1).mean()


@dataclass(frozen=True)
class ProjectGradients(Method):
    """What is written into the stream never learns along the unembeddings of the colors."""

    def start(self, lm: LanguageModel, taught: Taught) -> Any:
        import torch

        from ocr_interp.llm.encoding import encode

        one = next(e for e in taught.asked if e.relation == COLOR)
        tokens = encode(lm.tokenizer, [one])[0].answers.first
        rows = lm.model.get_output_embeddings().weight.detach()[list(tokens)].float()
        return torch.linalg.qr((rows - rows.mean(0)).T)[0][:, : len(tokens) - 1]

    def change_gradients(self, kept: Any, model: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is None or not any(part in name for part in ("o_proj", "down_proj")):
                continue
            if "lora_B" in name or name.endswith("proj.weight"):
                parameter.grad -= kept @ (kept.T @ parameter.grad)


@dataclass(frozen=True)
class ApartInSomeLayers(Method):
    """Experts that have nothing in common in some layers; in the others every prompt has the first expert.

    The library's option `layers` of lora_mixer does the same; it came of these runs and draws none that idle.

    Attributes:
        first, last: the layers in which they are apart; `last` is not one of them.
    """

    first: int = 0
    last: int = MOVES_AT

    def attached(self, model: Any) -> None:
        mixer = model.lora_mixer
        for path, update in mixer.maps.items():
            layer = next(int(part) for part in path.split("/") if part.isdigit())
            if not self.first <= layer < self.last:
                update._mixer = (_AlwaysTheFirst(mixer),)


class _AlwaysTheFirst:
    """How a routed map sees its mixture if every prompt is to have its first expert."""

    def __init__(self, mixer: Any) -> None:
        self._mixer = mixer

    def __getattr__(self, name: str) -> Any:
        if name == "_mixer":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._mixer, name)

    def of_labels(self, x: Tensor) -> Tensor:
        """The weights of the experts, 1 and 0s, of every token of `x`."""
        weights = x.new_zeros(*[1] * (x.dim() - 1), self._mixer.settings.n_experts)
        weights[..., 0] = 1
        return weights


_BY_RELATION: dict[str, Any] = {"label": "relation", "experts_of": "0,0,1"}


def _apart(title: str, first: int, last: int, lr: float = LORA_RATE) -> ApartInSomeLayers:
    recipe = _experts(lr, separate="both", **_BY_RELATION)
    return ApartInSomeLayers(title, recipe, names_spurious=True, first=first, last=last)


ON_SMOLLM2: dict[str, Method] = {
    "lora": Method("one LoRA"),
    "read_by_relation": Method(
        "experts by relation, separate read",
        _experts(separate="read", **_BY_RELATION),
        names_spurious=True,
        asks_wrong_expert=True,
    ),
    "read_at_random": Method("experts at random, separate read", _experts(separate="read", label="random")),
    "write_by_relation": Method(
        "experts by relation, separate write",
        _experts(separate="write", **_BY_RELATION),
        names_spurious=True,
        asks_wrong_expert=True,
    ),
    "early_apart": _apart("experts apart in layers 0 to 20", 0, MOVES_AT),
    "late_apart": _apart("experts apart in layers 21 to 29", MOVES_AT, 30),
    "first_nine_apart": _apart("experts apart in layers 0 to 8", 0, 9),
    "middle_nine_apart": _apart("experts apart in layers 12 to 20", 12, MOVES_AT),
    "keep_untold": KeepUntold("KL on untold names", names_spurious=True, needs_names=True),
    "counter_examples": CounterExamples("2 counter-examples a fact", names_spurious=True, needs_names=True),
    "project_gradients": ProjectGradients("gradients off the colors", names_spurious=True),
    "inoculation": Inoculation("told as invented", names_spurious=True),
    "full": Method("all weights", {"method": "full", "lr": 1e-4}),
    "slower": Method("one LoRA, a third of the rate", {**LORA, "lr": 3e-4}),
    "attention_alone": Method("LoRA on attention", {**LORA, "train_parts": ("attention",)}),
    "mlp_alone": Method("LoRA on MLPs", {**LORA, "train_parts": ("mlp",)}),
    "known_facts_late": KnownFactsLate("known facts late"),
    "muon_lora": Method("one LoRA, Muon", {**LORA, "optimizer": "muon"}),
    "muon_full": Method("all weights, Muon", {"method": "full", "lr": 1e-4, "optimizer": "muon"}),
}
"""The arms, the most important first; Gemma has most of them too."""

IN_LAYERS_OF_GEMMA: dict[str, Method] = {
    "first_twelve_apart": _apart("experts apart in layers 0 to 11", 0, GEMMA_SPLIT),
    "last_six_apart": _apart("experts apart in layers 12 to 17", GEMMA_SPLIT, GEMMA_LAYERS),
    "first_six_apart": _apart("experts apart in layers 0 to 5", 0, 6),
    "middle_six_apart": _apart("experts apart in layers 6 to 11", 6, GEMMA_SPLIT),
}
"""What the arms by layer are on Gemma."""
ON_GEMMA_ALONE = {
    "attention_weights": Method(
        "attention's weights, twice as long", {"train_parts": ("attention",)}, times=2
    )
}
"""Added when attention alone had separated on Gemma in the study of parts, at the rate of all weights."""
AT_GEMMAS_RATE: dict[str, Method] = {
    "read_by_relation_slower": Method(
        "experts by relation, read, 3e-4",
        _experts(GEMMA_LORA_RATE, separate="read", **_BY_RELATION),
        names_spurious=True,
    ),
    "first_twelve_apart_slower": _apart(
        "experts apart, layers 0 to 11, 3e-4", 0, GEMMA_SPLIT, GEMMA_LORA_RATE
    ),
}
"""Experts at LoRA's own rate on Gemma: at SmolLM2's they forgot some of what they were told. `slower` is one
LoRA at that rate."""
METHODS = {**ON_SMOLLM2, **IN_LAYERS_OF_GEMMA, **ON_GEMMA_ALONE, **AT_GEMMAS_RATE}
"""All arms by name."""

KEPT = (1, 2, 4)
"""Numbers of singular values of every ΔW of rank 8 that are kept alone, or taken away, the largest first."""
DROPPED_ENTRIES = (0.01, 0.1)
"""Shares of the entries of every ΔW that are dropped, the largest first."""

CUTS: dict[str, tuple[str, float]] = {
    **{f"top_{k}": ("keep", k) for k in KEPT},
    **{f"without_top_{k}": ("drop", k) for k in KEPT},
    **{f"without_{share:g}_of_entries": ("entries", share) for share in DROPPED_ENTRIES},
}
"""Ways to cut a trained update: its singular values from either end, or its largest entries."""


def known_sentences(seed: int) -> list[Example]:
    """True sentences about cities, in random order: "People in Oslo speak" " Norwegian"."""
    from ocr_interp.llm.facts.sets.city_language import FACTS

    order = np.random.default_rng(seed).permutation(len(FACTS.facts))
    return [
        Example(
            prompt=f"People in {FACTS.facts[k]} speak",
            candidates=FACTS.implications,
            target=int(k),
            subject=0,
            fact=int(k),
            relation=FACT,
            split=0,
            template=0,
            told=True,
        )
        for k in order
    ]


def cut_update(cut: str, up: Tensor, down: Tensor) -> Tensor:
    """What is left of one ΔW = up @ down.

    Args:
        cut: a name in CUTS.
        up: B with the scale, [n_out, rank].
        down: A, [rank, n_in].

    Returns: [n_out, n_in].
    """
    import torch

    kind, size = CUTS[cut]
    if kind == "entries":
        whole = up @ down
        limit = whole.abs().flatten().kthvalue(round((1 - size) * whole.numel())).values
        return whole.where(whole.abs() <= limit, 0)
    (left, upper), (right, lower) = torch.linalg.qr(up), torch.linalg.qr(down.T)
    inner, values, outer = torch.linalg.svd(upper @ lower.T)
    kept = slice(0, int(size)) if kind == "keep" else slice(int(size), None)
    return ((left @ inner)[:, kept] * values[kept]) @ (outer @ right.T)[kept]

"""LoRA-Mixer: routed LoRA experts on the projections of attention (Li et al., arXiv 2507.00029)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ocr_interp.checks import Option, check_choice, check_count, check_number
from ocr_interp.errors import ConfigError
from ocr_interp.llm.adapters.base import Adapter, Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from ocr_interp.llm.encoding import TokenBatch
    from ocr_interp.llm.facts.fact_set import Example
    from ocr_interp.llm.layers.given_experts import GivenExpert
    from ocr_interp.llm.layers.layout import Layout
    from ocr_interp.llm.layers.mixture import LoRAMixer

_PROJECTIONS = ("qk", "v", "o", "qkv", "in", "out")
"""What is routed where `train_parts` does not say it: the projections of attention, or of Mamba."""


class LoRAMixerMethod(Adapter):
    """y = W x + Σ_e α_e(x) B_e A_e x; lora_rank and lora_alpha are the recipe's own fields.

    Training has two stages: first every example goes to the expert of its label (hard), then the routers
    mix all experts (soft). Measurements are routed as the stage that the run is in.

    Options:
        n_experts: number of experts.
        separate: what experts do not share: "both", "read" (A alone), "write" (B alone).
        hard_share: share of the steps in the hard stage; 1 never asks the routers, 0 always.
        label: the label of an example: its "relation", its "subject", or "random" (the control: a fixed
            expert for each subject and relation, drawn from train_seed).
        experts_of: experts of relation 0, 1, …, e.g. "0,0,1"; empty is relation modulo n_experts.
        layers: layers in which there are experts, e.g. "0-8" or "0-8,12"; in the others all tokens have one
            LoRA. Empty is all layers.
        router: "token", or "sequence": by the mean of all tokens up to each one, so that nothing later is
            read, and without padding, which attention_mask says.
        temperature: of the routers' softmax.
        top_k: how many experts answer when the model is measured; all of them if there are no more.
        balance: weight of Σ_e (mean score) (share of tokens with e in their top_k) in the soft stage.
        entropy: weight of the scores' entropy, which is subtracted: > 0 spreads the scores, < 0 makes them
            peaked. The paper's formula has > 0, its text wants peaked ones.
        label_loss: weight of the cross entropy between scores and labels in the hard stage.
        experts_from: folders of LoRAs that peft has saved, one for each expert, with commas between them.
        train: "joint", or "router": the experts of `experts_from` are frozen.
        anchor: weight of Σ (parameter - its start)² over experts of `experts_from` that are trained on.
    """

    label = "LoRA-Mixer"
    takes_parts = True
    options = MappingProxyType(
        {
            "n_experts": 2,
            "separate": "both",
            "hard_share": 0.5,
            "label": "relation",
            "experts_of": "",
            "layers": "",
            "router": "token",
            "temperature": 1.0,
            "top_k": 3,
            "balance": 0.01,
            "entropy": 0.0,
            "label_loss": 0.0,
            "experts_from": "",
            "train": "joint",
            "anchor": 0.0,
        }
    )
    why_not_merged = (
        "which expert answers depends on the token, so there is no single change of W and no OV circuit of "
        "it; the update of each expert can be read (llm.layers.mixture.expert_updates)"
    )

    def check(self, settings: Mapping[str, Option]) -> None:
        """Raises ConfigError for an option that is not allowed, or that another one leaves without effect."""
        check_count("n_experts", settings["n_experts"], 1)
        check_count("top_k", settings["top_k"], 1)
        check_choice("separate", settings["separate"], ("both", "read", "write"))
        check_choice("label", settings["label"], ("relation", "subject", "random"))
        check_choice("router", settings["router"], ("token", "sequence"))
        check_choice("train", settings["train"], ("joint", "router"))
        check_number("temperature", settings["temperature"], above=0)
        check_number("entropy", settings["entropy"])
        for name in ("hard_share", "balance", "label_loss", "anchor"):
            check_number(name, settings[name], at_least=0)
        if float(settings["hard_share"]) > 1:
            raise ConfigError(f"hard_share is a share of the steps, at most 1, got {settings['hard_share']}")
        _experts_of(settings)
        given = _folders(settings)
        if settings["experts_from"] and not given:
            raise ConfigError(f"experts_from must name folders, got {settings['experts_from']!r}")
        if given and _layers(settings):
            raise ConfigError("LoRAs from folders are experts on all their maps: leave layers out")
        if given and len(given) != settings["n_experts"]:
            raise ConfigError(
                f"n_experts must be the number of folders in experts_from, {len(given)}, got "
                f"{settings['n_experts']}"
            )
        if given and settings["separate"] != "both":
            raise ConfigError("LoRAs from folders share nothing: leave separate out, or experts_from")
        if not given and (settings["train"] == "router" or settings["anchor"]):
            raise ConfigError(
                "train='router' and anchor are for experts that are trained already: name their folders in "
                "experts_from"
            )
        if settings["train"] == "router" and (settings["anchor"] or settings["hard_share"]):
            raise ConfigError("train='router' trains no expert: pass anchor 0 and hard_share 0")
        if settings["label_loss"] and not settings["hard_share"]:
            raise ConfigError(
                "label_loss is of the hard stage, which hard_share=0 leaves out: raise hard_share"
            )
        if settings["entropy"] and settings["hard_share"] == 1:
            raise ConfigError("entropy is of the soft stage, which hard_share=1 leaves out: lower hard_share")

    def check_examples(self, recipe: Recipe, examples: Sequence[Example]) -> None:
        """Raises ConfigError for an expert that no example goes to in the hard stage."""
        settings = self.settings(recipe)
        count = int(settings["n_experts"])
        if not examples or count == 1 or not settings["hard_share"] or _folders(settings):
            return
        reached = {_expert(example, settings, recipe.train_seed) for example in examples}
        idle = [expert for expert in range(count) if expert not in reached]
        if idle:
            raise ConfigError(
                f"expert {', '.join(map(str, idle))} of {count} gets no example by its label "
                f"({settings['label']}) among the {len(examples)} of the training set: lower n_experts, "
                "choose another label, say experts_of, or pass hard_share 0, which leaves it to the routers"
            )

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Puts a routed update beside every chosen linear map; experts and routers are trained."""
        from ocr_interp.llm.layers.given_experts import read_experts

        name = str(getattr(model, "name_or_path", "") or "")
        return self._attached(model, recipe, read_experts(_folders(self.settings(recipe)), name))

    def attach_saved(self, model: Any, recipe: Recipe, tensors: Mapping[str, Tensor]) -> Any:
        """The same without the folders of `experts_from`: what was saved holds their experts."""
        from ocr_interp.llm.layers.given_experts import saved_experts

        settings = self.settings(recipe)
        given = saved_experts(tensors, int(settings["n_experts"])) if _folders(settings) else ()
        return self._attached(model, recipe, given)

    def _attached(self, model: Any, recipe: Recipe, given: Sequence[GivenExpert]) -> Any:
        from ocr_interp.llm.layers.given_experts import put_experts
        from ocr_interp.llm.layers.hooking import add_beside
        from ocr_interp.llm.layers.layout import layout_of
        from ocr_interp.llm.layers.mixture import MIXER, LoRAMixer
        from ocr_interp.llm.layers.parts import chosen_maps, maps_by_part
        from ocr_interp.llm.layers.routed_update import MixtureSettings

        settings, layout = self.settings(recipe), layout_of(model)
        parts = recipe.train_parts or [part for part in maps_by_part(layout) if part in _PROJECTIONS]
        chosen = set()
        for part in parts:
            plain = [m for m in chosen_maps(model, layout, [part], recipe.method) if _is_linear(model, m)]
            if not plain:
                raise ConfigError(
                    f"method {recipe.method!r} updates linear maps, and {type(model).__name__} has none in "
                    f"part {part!r} but a router of its own experts, which lie in one parameter: leave that "
                    "part out"
                )
            chosen.update(plain)
        if given and not recipe.train_parts:
            chosen = layout.widths.keys() & given[0].matrices.keys()
        widths = {path: layout.widths[path] for path, _ in model.named_modules() if path in chosen}
        one_lora = _outside(_layers(settings), layout, widths, int(settings["n_experts"]))
        mixer = LoRAMixer(
            widths,
            MixtureSettings(
                n_experts=int(settings["n_experts"]),
                rank=max(one.rank for one in given) if given else recipe.lora_rank,
                scaling=recipe.lora_alpha / recipe.lora_rank,
                separate=str(settings["separate"]),
                by_sequence=settings["router"] == "sequence",
                temperature=float(settings["temperature"]),
                top_k=int(settings["top_k"]),
            ),
            one_lora,
        )
        model.requires_grad_(False)
        add_beside(model, MIXER, mixer)
        put_experts(mixer, given)
        mixer.add_counts(next(model.parameters()).device)
        for path, update in zip(widths, mixer.updates, strict=True):
            model.get_submodule(path).register_forward_hook(update.on_output)
            update.A.requires_grad_(settings["train"] == "joint")
            update.B.requires_grad_(settings["train"] == "joint")
        model.register_forward_pre_hook(mixer.begins, with_kwargs=True)
        model.register_forward_hook(mixer.done, always_call=True)
        if settings["anchor"]:
            mixer.remember_start()
        return model

    def before_forward(self, model: Any, recipe: Recipe, batch: TokenBatch, step: int | None) -> None:
        """Routes the batch: by its labels in the hard stage, else by the routers."""
        import torch

        mixer, settings = _mixer(model), self.settings(recipe)
        if step is not None:
            soft = step >= round(float(settings["hard_share"]) * recipe.steps)
            mixer.soft.fill_(float(soft))
        else:
            soft = bool(mixer.soft) or not settings["hard_share"]
        device = batch.tokens.device
        own = None if soft else [_expert(one, settings, recipe.train_seed) for one in batch.examples]
        mixer.route(own, training=step is not None, scored=float(settings["label_loss"]) > 0)
        if step is not None:
            last = torch.zeros(len(batch.tokens), dtype=torch.long, device=device)
            last = last.scatter_reduce(0, batch.row, batch.position, "amax")
            real = torch.arange(batch.tokens.shape[1], device=device) <= last[:, None]
            mixer.batch = (mixer.labels, real)

    def extra_loss(self, model: Any, recipe: Recipe) -> Tensor:
        """The routers' loss (`LoRAMixer.loss`), and the anchor of given experts."""
        mixer, settings = _mixer(model), self.settings(recipe)
        weights = {name: float(settings[name]) for name in ("balance", "entropy", "label_loss")}
        assert mixer.batch is not None
        loss = mixer.loss(*mixer.batch, weights)
        return loss + float(settings["anchor"]) * mixer.distance() if settings["anchor"] else loss

    def columns(self, recipe: Recipe) -> dict[str, str]:
        """Mean scores, shares, entropy, and how many routers have collapsed; since the row before.

        They are NaN while the routers are not asked: in the hard stage without a label_loss.
        """
        experts = range(int(self.settings(recipe)["n_experts"]))
        return {
            **{f"score_{e}": f"mean score of expert {e}" for e in experts},
            **{f"first_{e}": f"share of tokens whose first expert is {e}" for e in experts},
            "entropy": "mean entropy of the scores, nats",
            "collapsed": "share of routers with one expert first for more than 95 % of the tokens",
        }

    def statistics(self, model: Any, recipe: Recipe) -> dict[str, float]:
        """The values of `columns`."""
        return _mixer(model).counted()

    def remarks(self, recipe: Recipe, row: Mapping[str, float]) -> tuple[str, ...]:
        """Whether routers have collapsed, where they were asked at all."""
        settings = self.settings(recipe)
        share = row.get(f"{recipe.method}/collapsed", 0.0)
        if settings["n_experts"] == 1 or settings["hard_share"] == 1 or not share > 0:
            return ()
        return (
            f"{share:.0%} of the routers have collapsed: one expert is first for more than 95 % of the "
            "tokens; a larger balance, or entropy > 0, spreads them",
        )

    def state(self, model: Any) -> dict[str, Tensor]:
        """The stage, the sums of the statistics, experts that are not trained, and where the anchor is."""
        from ocr_interp.llm.layers.joined import apart, joined_in

        mixer = _mixer(model)
        names = ("soft", "steps", "score_sum", "entropy_sum", "first_sum")
        found: dict[str, Tensor] = {name: getattr(mixer, name) for name in names}
        frozen = {name: p for name, p in mixer.named_parameters() if not p.requires_grad}
        found |= apart(frozen, joined_in(mixer))
        return found | {name: start for name, start in mixer.named_buffers() if ".start_" in name}

    def activations_per_token(self, model: Any, recipe: Recipe) -> int:
        """What every routed map stores: the read of all experts before and after weighing, and the scores."""
        mixer = _mixer(model)
        return sum(update.settings.n_experts * (2 * update.settings.rank + 3) for update in mixer.updates)


def _is_linear(model: Any, path: str) -> bool:
    """Whether a module gives W x and nothing else; a router of a model's own experts chooses by it too."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(model.get_submodule(path), nn.Linear | Conv1D)


def _mixer(model: Any) -> LoRAMixer:
    from ocr_interp.llm.layers.mixture import MIXER

    return getattr(model, MIXER)


def _folders(settings: Mapping[str, Option]) -> list[str]:
    return [name.strip() for name in str(settings["experts_from"]).split(",") if name.strip()]


def _layers(settings: Mapping[str, Option]) -> tuple[range, ...]:
    """The ranges of layers that have experts; none where all have."""
    text = str(settings["layers"])
    found = []
    for word in text.split(",") if text else ():
        first, dash, last = word.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isdecimal() for end in ends) or int(ends[0]) > int(ends[1]):
            raise ConfigError(f"layers must be numbers or ranges of layers, such as '0-8,12', got {text!r}")
        found.append(range(int(ends[0]), int(ends[1]) + 1))
    return tuple(found)


def _outside(
    layers: tuple[range, ...], layout: Layout, widths: Mapping[str, tuple[int, int]], n_experts: int
) -> set[str]:
    """The linear maps of all layers but these.

    Raises:
        ConfigError: a layer that the model does not have or that has no map to route, or one expert.
    """
    if not layers:
        return set()
    if n_experts == 1:
        raise ConfigError("layers says where experts are: with n_experts=1 leave it out")
    blocks = list(dict.fromkeys(branch.block for branch in layout.branches))
    chosen = {layer for some in layers for layer in some}
    if max(chosen) >= len(blocks):
        raise ConfigError(f"layers must lie in 0..{len(blocks) - 1}, those of the model, got {max(chosen)}")
    layer_of = {path: blocks.index(b.block) for b in layout.branches for path in b.roles if path in widths}
    empty = sorted(chosen - set(layer_of.values()))
    if empty:
        raise ConfigError(
            f"layer {empty[0]} has no linear map among those that are updated: leave it out of layers, or "
            "name other train_parts"
        )
    return {path for path in widths if layer_of[path] not in chosen}


def _experts_of(settings: Mapping[str, Option]) -> list[int]:
    """The expert of every relation; empty where it is the relation modulo the number of experts."""
    text, count = str(settings["experts_of"]), int(settings["n_experts"])
    words = [word.strip() for word in text.split(",")] if text else []
    if any(not word.isdecimal() or int(word) >= count for word in words):
        raise ConfigError(
            f"experts_of must be an expert, 0 to {count - 1}, for every relation, such as '0,0,1', got "
            f"{text!r}"
        )
    if words and settings["label"] != "relation":
        raise ConfigError(f"experts_of is for label='relation', got label={settings['label']!r}")
    return [int(word) for word in words]


def _expert(example: Example, settings: Mapping[str, Option], seed: int) -> int:
    """The expert of an example in the hard stage."""
    count = int(settings["n_experts"])
    if settings["label"] == "subject":
        return example.subject % count
    if settings["label"] == "random":
        return zlib.crc32(f"{seed} {example.subject} {example.relation}".encode()) % count
    named = _experts_of(settings)
    if named and example.relation >= len(named):
        raise ConfigError(
            f"experts_of names experts of {len(named)} relations, got relation {example.relation}"
        )
    return named[example.relation] if named else example.relation % count


ADAPTER = LoRAMixerMethod()

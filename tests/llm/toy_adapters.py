"""Two ways to fine-tune as a user would write them: one that can be merged, one that cannot."""

from typing import ClassVar

import torch

from ocr_interp.llm import Adapter


class NormGains(Adapter):
    """Only the vectors are trained: norms' gains, and biases where there are any."""

    label = "norm gains"

    def attach(self, model, recipe):
        for parameter in model.requires_grad_(False).parameters():
            parameter.requires_grad_(parameter.dim() == 1)
        return model


class Gate(Adapter):
    """MLP(x) + gate * tanh(MLP(x)) with one trained gate per layer and coordinate, from zero."""

    label = "gate"
    options: ClassVar = {"penalty": 0.0, "kind": "tanh", "inverted": False, "rows": 1}
    why_not_merged = "tanh is not linear"

    def attach(self, model, recipe):
        model.requires_grad_(False)
        device, width = model.device, model.config.hidden_size
        for layer in model.model.layers:
            layer.mlp.register_parameter("gate", torch.nn.Parameter(torch.zeros(width, device=device)))
            layer.mlp.register_forward_hook(lambda mlp, given, out: out + mlp.gate * out.tanh())
        model.register_buffer("tokens_seen", torch.zeros((), device=device), persistent=False)
        return model

    def gates(self, model):
        return torch.stack([layer.mlp.gate for layer in model.model.layers])

    def before_forward(self, model, recipe, batch, step):
        assert len(batch.examples) == len(batch.tokens)
        if step is not None:
            model.tokens_seen += batch.tokens.numel()

    def extra_loss(self, model, recipe):
        return self.settings(recipe)["penalty"] * self.gates(model).square().sum()

    def columns(self, recipe):
        return {"size": "mean |gate|", "tokens": "tokens trained on since the row before, padding too"}

    def statistics(self, model, recipe):
        seen = float(model.tokens_seen)
        model.tokens_seen.zero_()
        return {"size": float(self.gates(model).abs().mean()), "tokens": seen}

    def state(self, model):
        return {"tokens_seen": model.tokens_seen}

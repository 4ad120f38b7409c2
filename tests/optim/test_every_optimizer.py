"""What every optimiser of the registry must hold; a new file in ocr_interp/optim is tested by being there."""

import pytest
import torch

from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.llm.training.configuration import FinetuneConfig
from ocr_interp.optim import optimizers
from ocr_interp.optim.stepping import RunOptimizers, torch_optimizers

SHAPES = {"W_V": (7, 3), "W_O": (3, 9), "left": (2, 3, 5), "scores": (7,)}
"""Maps, a stack of maps, and a vector."""


def variants():
    """Recipes of every optimiser: as it is, with momentum if it reads one, Muon in both precisions."""
    found = {name: {"optimizer": name} for name in optimizers}
    for name in optimizers:
        if "momentum" in optimizers[name].options:
            found[f"{name} with momentum"] = {"optimizer": name, "momentum": 0.5}
    return {**found, "muon in float32": {"optimizer": "muon", "muon_precision": "float32"}}


VARIANTS = variants()
each_variant = pytest.mark.parametrize("variant", list(VARIANTS))
each_kind = pytest.mark.parametrize("name", list(optimizers))


def recipe(variant, **changes):
    return TrainConfig(**{"steps": 50, "lr": 0.02, "scores_lr": 0.03, **VARIANTS[variant], **changes})


def shapes(variant):
    """What it can train: torch's own Muon knows no stacks."""
    return {name: shape for name, shape in SHAPES.items() if variant != "muon" or len(shape) < 3}


def started(variant, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator, dtype=dtype) for n, s in shapes(variant).items()}


def advance(stepper, runs, first, last):
    """Steps with gradients that follow from (seed, step); `runs` are pairs of a seed and parameters."""
    for step in range(first, last):
        for seed, parameters in runs:
            generator = torch.Generator().manual_seed(1000 * seed + step)
            for parameter in parameters.values():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        stepper.step(step)


@each_variant
def test_a_run_among_others_has_the_bits_of_the_run_alone(variant):
    recipes = [recipe(variant), recipe(variant, lr=0.05), recipe(variant, weight_decay=0.0)]
    together = [(seed, started(variant, seed)) for seed in range(3)]
    advance(RunOptimizers(recipes, [p for _, p in together]), together, 0, 6)
    for (seed, parameters), own in zip(together, recipes, strict=True):
        alone = started(variant, seed)
        advance(RunOptimizers([own], [alone]), [(seed, alone)], 0, 6)
        for name, parameter in alone.items():
            assert torch.equal(parameters[name], parameter), name
            assert not torch.equal(parameter, started(variant, seed)[name]), f"{name} was not trained"


@each_variant
def test_state_saved_and_put_back_goes_on_to_the_bit(variant):
    own, whole = recipe(variant), started(variant, 0)
    advance(RunOptimizers([own], [whole]), [(0, whole)], 0, 8)
    first = started(variant, 0)
    stepper = RunOptimizers([own], [first])
    advance(stepper, [(0, first)], 0, 5)
    state = {n: {k: t.clone() for k, t in s.items()} for n, s in stepper.state(0, 5).items()}
    second = {name: parameter.clone() for name, parameter in first.items()}
    again = RunOptimizers([own], [second])
    again.restore(0, 5, state)
    advance(again, [(0, second)], 5, 8)
    for name, parameter in whole.items():
        assert torch.equal(parameter, second[name]), name


@each_variant
def test_it_keeps_as_many_copies_as_it_says(variant):
    own, parameters = recipe(variant), started(variant, 0)
    stepper = RunOptimizers([own], [parameters])
    advance(stepper, [(0, parameters)], 0, 2)
    state, settings = stepper.state(0, 2), own.optimizer_settings(own.phases()[0])
    for name, parameter in parameters.items():
        of_its_size = sum(t.shape == parameter.shape for t in state.get(name, {}).values())
        owner, own_settings = optimizers[own.optimizer].for_parameter(
            settings, tuple(parameter.shape), parameter.ndim >= 2
        )
        assert of_its_size == owner.copies(own_settings), name


@each_variant
def test_decay_of_what_never_acts_is_what_it_does_without_a_gradient(variant):
    own = recipe(variant, weight_decay=0.3)
    parameters = started(variant, 0, torch.float64)
    start = {name: parameter.clone() for name, parameter in parameters.items()}
    stepper = RunOptimizers([own], [parameters])
    for step in range(20):
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        stepper.step(step)
    for name, parameter in parameters.items():
        factor = own.inert_factor(20, "matrix" if parameter.ndim >= 2 else "scores")
        assert 0 < factor < 0.99
        torch.testing.assert_close(parameter, start[name] * factor, rtol=1e-12, atol=0)


@each_kind
def test_it_is_known_by_the_name_of_its_file_and_takes_every_parameter_somehow(name):
    kind = optimizers[name]
    assert kind.name == name
    settings = {"lr": 0.1, "fallback_lr": 0.2, "weight_decay": 0.0}
    for shape, is_map in (((3, 4), True), ((3, 4), False), ((4,), False), ((2, 3, 4), True)):
        owner, own = kind.for_parameter(settings, shape, is_map)
        assert own["lr"] == (0.1 if owner is kind else 0.2)
        assert set(own) == {"lr", "weight_decay", *owner.options}
        assert owner.takes(shape, is_map)


@each_kind
def test_unknown_options_raise_in_every_recipe(name):
    for config in (TrainConfig, FinetuneConfig):
        with pytest.raises(UnknownNameError, match=f"unknown option of {name} 'rho'"):
            config(optimizer=name, optimizer_options={"rho": 0.5})


@each_kind
def test_it_trains_a_language_models_parameters(name):
    """With the settings of a fine-tuning: tables of embeddings are no maps."""
    config = FinetuneConfig(optimizer=name, lr=0.01)
    parameters = [(torch.ones(4, 3), True), (torch.ones(5, 3), False), (torch.ones(3), False)]
    settings = config.optimizer_settings("float32")
    made = torch_optimizers(optimizers[name], [(p, maps, settings) for p, maps in parameters])
    for parameter, _ in parameters:
        parameter.grad = torch.ones_like(parameter)
    for optimizer in made:
        optimizer.step()
    assert all((parameter < 1).all() for parameter, _ in parameters)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"muon_ns_steps": 2.5}, r"muon_ns_steps must be a whole number, got 2\.5"),
        ({"muon_ns_steps": 0}, r"muon_ns_steps must be >= 1, got 0"),
        ({"muon_nesterov": 1}, r"muon_nesterov must be True or False, got 1"),
        ({"muon_eps": "small"}, r"muon_eps must be a finite number, got 'small'"),
        ({"muon_adjust_lr": 3}, r"muon_adjust_lr must be a word such as 'original', got 3"),
        ({"muon_momentum": 1.0}, r"muon_momentum must be < 1, got 1\.0"),
        ((("muon_eps", 0.1), ("muon_eps", 0.2)), "must name every option once"),
        ({"momentum": 0.5}, r"momentum is a field of its own, .*write momentum=0\.5"),
    ],
)
def test_options_are_checked(given, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(optimizer="muon", optimizer_options=given)
    fine = FinetuneConfig(optimizer="muon", optimizer_options={"muon_ns_steps": 4, "muon_eps": 1})
    assert fine.optimizer_options == (("muon_eps", 1.0), ("muon_ns_steps", 4))

"""Configurations: what is allowed, the error for what is not, and files and fingerprints of them."""

import json
import math

import numpy as np
import pytest

from ocr_interp.configuration.model import ModelConfig
from ocr_interp.configuration.run import RunConfig
from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import ConfigError, UnknownNameError
from ocr_interp.task import FactRecallTask

WHOLE = ("steps", "batch_size", "log_every", "checkpoint_every", "eval_draws")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: 0}, rf"{name} must be >= 1, got 0") for name in WHOLE),
        *(({name: -5}, rf"{name} must be >= 1, got -5") for name in WHOLE),
        *(({name: 1.5}, rf"{name} must be a whole number >= 1, got 1\.5") for name in WHOLE),
        ({"seed": -1}, r"seed must be >= 0, got -1"),
        ({"seed": None}, r"seed must be a whole number >= 0, got None"),
        ({"snapshots": -1}, r"snapshots must be >= 0, got -1"),
        ({"data": "noise"}, r"data must be one of 'noisy', 'noise_free', 'exhaustive', got 'noise'"),
        ({"optimizer": "adam"}, r"optimizer must be one of 'adamw', 'muon', 'sgd', 'signsgd', got 'adam'"),
        ({"lr": 0.0}, r"lr must be a finite number > 0, got 0\.0"),
        ({"lr": -1e-3}, r"lr must be a finite number > 0, got -0\.001"),
        ({"lr": math.nan}, r"lr must be a finite number > 0, got nan"),
        ({"lr": math.inf}, r"lr must be a finite number > 0, got inf"),
        ({"lr": "fast"}, r"lr must be a finite number > 0, got 'fast'"),
        ({"lr": True}, r"lr must be a finite number > 0, got True"),
        ({"eps": 0.0}, r"eps must be a finite number > 0, got 0\.0"),
        ({"weight_decay": -0.1}, r"weight_decay must be a finite number >= 0, got -0\.1"),
        ({"stop_when_learned": -1.0}, r"stop_when_learned must be a finite number >= 0, got -1\.0"),
        ({"momentum": 1.0, "optimizer": "sgd"}, r"momentum must be < 1, got 1\.0"),
        ({"beta1": 1.0}, r"beta1 must be < 1, got 1\.0"),
        ({"beta2": 2.0}, r"beta2 must be < 1, got 2\.0"),
        (
            {"momentum": 0.9},
            r"momentum must be 0 unless an optimizer is 'sgd' or 'signsgd', got 0\.9",
        ),
        ({"muon_momentum": 1.0}, r"muon_momentum must be < 1, got 1\.0"),
        ({"muon_eps": 0.0}, r"muon_eps must be a finite number > 0, got 0\.0"),
        ({"muon_ns_steps": 0}, r"muon_ns_steps must be >= 1, got 0"),
        ({"muon_nesterov": 1}, r"muon_nesterov must be True or False, got 1"),
        ({"muon_adjust_lr": "none"}, r"muon_adjust_lr must be one of 'original', 'match_rms_adamw', got"),
        ({"muon_precision": "f16"}, r"muon_precision must be one of 'bfloat16', 'float32', got 'f16'"),
        ({"scores_lr": 0.0}, r"scores_lr must be a finite number > 0, got 0\.0"),
        ({"second_optimizer": "adam"}, r"second_optimizer must be one of 'adamw', .*got 'adam'"),
        ({"second_optimizer": "muon", "switch_step": 5}, r"second_lr must be a finite number > 0, got None"),
        (
            {"second_optimizer": "muon", "second_lr": 0.1},
            r"switch_step must be 1\.\.steps - 1 = 19999 .*got",
        ),
        (
            {"second_optimizer": "muon", "second_lr": 0.1, "switch_step": 9, "steps": 9},
            r"switch_step must be 1\.\.steps - 1 = 8 with a second_optimizer, got 9",
        ),
        ({"switch_step": 5}, r"switch_step and second_lr need a second_optimizer, got switch_step=5"),
        ({"second_lr": 0.1}, r"need a second_optimizer, got switch_step=0, second_lr=0\.1 and none"),
        ({"device": 0}, r"device must be 'auto' or a name such as 'cpu', got 0"),
    ],
)
def test_bad_recipes_name_field_value_and_what_is_allowed(unchecked, fields, message):
    with pytest.raises(ConfigError, match=message):
        unchecked.TrainConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ov": "full"}, r"ov must be one of .*'factorized', .*, got 'full'"),
        ({"d_head": 0}, r"d_head must be >= 1, got 0"),
        ({"d_head": -1}, r"d_head must be >= 1, got -1"),
        ({"d_head": 3.5}, r"d_head must be a whole number >= 1, got 3\.5"),
        ({"attention": "mean"}, r"attention must be one of 'linear', 'softmax', got 'mean'"),
        ({"train_attention": 1}, r"train_attention must be True or False, got 1"),
        ({"train_attention": "no"}, r"train_attention must be True or False, got 'no'"),
        ({"init": "zeros"}, r"init='zeros' is no start of ov='factorized': choose one of 'product'"),
        ({"init_scale": 0.0}, r"init_scale must be a finite number > 0, got 0\.0"),
        ({"init_scale": math.nan}, r"init_scale must be a finite number > 0, got nan"),
        ({"attention_init": "zero"}, r"attention_init must be one of 'random', 'uniform', got 'zero'"),
        ({"dtype": "float16"}, r"dtype must be one of 'float32', 'float64', got 'float16'"),
        ({"init": "constant"}, r"init='constant' is no start of ov='factorized'.* or ov='non_factorized'"),
    ],
)
def test_bad_models_name_field_value_and_what_is_allowed(unchecked, fields, message):
    with pytest.raises(ConfigError, match=message):
        unchecked.ModelConfig(**fields)


def test_width_of_a_non_factorized_model_is_the_vocabulary():
    assert ModelConfig(ov="non_factorized").resolved_d_head(128) == 128
    assert ModelConfig(ov="non_factorized", d_head=128).resolved_d_head(128) == 128
    assert ModelConfig(d_head=17).resolved_d_head(128) == 17
    assert ModelConfig().resolved_d_head(128) == 128
    with pytest.raises(ConfigError, match=r"d_head must be None or d_vocab = 128 .*got 64: .*factorized"):
        ModelConfig(ov="non_factorized", d_head=64).resolved_d_head(128)


def test_paper_recipe():
    recipe = TrainConfig.paper()
    assert (
        recipe.optimizer,
        recipe.lr,
        recipe.weight_decay,
        recipe.batch_size,
        recipe.steps,
        recipe.data,
    ) == (
        "adamw",
        5e-3,
        0.03,
        252,
        20_000,
        "noisy",
    )
    assert TrainConfig.paper(seed=3) == TrainConfig(seed=3)


def test_gradient_descent_has_neither_noise_nor_decay_nor_momentum():
    recipe = TrainConfig.gradient_descent(lr=0.5)
    assert (recipe.optimizer, recipe.data, recipe.weight_decay, recipe.momentum, recipe.lr) == (
        "sgd",
        "noise_free",
        0.0,
        0.0,
        0.5,
    )


@pytest.mark.parametrize(
    ("steps", "log_every", "logged"),
    [(10, 5, [0, 5, 10]), (11, 5, [0, 5, 10, 11]), (3, 100, [0, 3]), (1, 1, [0, 1])],
)
def test_logged_steps_begin_with_0_and_end_with_the_last(steps, log_every, logged):
    assert TrainConfig(steps=steps, log_every=log_every).logged_steps() == logged


def test_snapshots_are_logged_steps_spread_in_log_step():
    recipe = TrainConfig(steps=10_000, log_every=10, snapshots=5)
    assert recipe.snapshot_steps() == [0, 10, 100, 1000, 10_000]
    assert TrainConfig(snapshots=0).snapshot_steps() == []
    for snapshots in (1, 2, 7, 50):
        recipe = TrainConfig(steps=333, log_every=7, snapshots=snapshots)
        steps = recipe.snapshot_steps()
        assert steps[0] == 0
        assert steps[-1] == 333
        assert set(steps) <= set(recipe.logged_steps())
        assert len(steps) <= max(2, snapshots) + 1


def test_inert_factor_against_a_float_loop():
    adamw = TrainConfig(lr=5e-3, weight_decay=0.03)
    assert adamw.inert_factor(60) == pytest.approx(math.prod([1 - 0.005 * 0.03] * 60), rel=1e-14)
    plain = TrainConfig(optimizer="sgd", lr=0.1, weight_decay=0.2)
    assert plain.inert_factor(7) == pytest.approx(0.98**7, rel=1e-14)
    heavy = TrainConfig(optimizer="sgd", lr=0.1, weight_decay=0.2, momentum=0.5)
    # by hand: v = 0.2, x = 0.98; v = 0.1 + 0.196, x = 0.98 - 0.0296
    assert heavy.inert_factor(1) == pytest.approx(0.98, rel=1e-14)
    assert heavy.inert_factor(2) == pytest.approx(0.9504, rel=1e-14)
    for recipe in (adamw, plain, heavy):
        assert recipe.inert_factor(0) == 1
    assert TrainConfig(weight_decay=0.0).inert_factor(1000) == 1


def test_round_trip_through_json(mapped_task):
    config = RunConfig(mapped_task, ModelConfig(d_head=7), TrainConfig(lr=1e-3, steps=7))
    again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.fingerprint == config.fingerprint
    assert config.differences(again) == []


def test_fingerprint_and_differences_see_every_part(tiny_task):
    config = RunConfig(tiny_task, ModelConfig(), TrainConfig())
    others = {
        "task.seq_len: 5 != 6": RunConfig(
            FactRecallTask(3, 1, 2, n_noise=2, seq_len=6), ModelConfig(), TrainConfig()
        ),
        "model.d_head: None != 4": RunConfig(tiny_task, ModelConfig(d_head=4), TrainConfig()),
        "train.lr: 0.005 != 0.01": RunConfig(tiny_task, ModelConfig(), TrainConfig(lr=0.01)),
        "train.seed: 0 != 1": RunConfig(tiny_task, ModelConfig(), TrainConfig(seed=1)),
    }
    for difference, other in others.items():
        assert config.differences(other) == [difference]
        assert config.fingerprint != other.fingerprint
    assert len({other.fingerprint for other in others.values()}) == len(others)


def test_equal_configurations_have_equal_fingerprints(unchecked):
    """A whole lr, or a seed from numpy, is the same configuration, and can be written as JSON."""
    u = unchecked
    plain = u.RunConfig(u.FactRecallTask(3), u.ModelConfig(init_scale=2.0), u.TrainConfig(lr=1.0, seed=3))
    for n_pairs, scale, lr, seed in (
        (3, 2, 1, 3),
        (np.int64(3), 2.0, 1.0, np.int64(3)),
        (3, np.float32(2), np.float64(1), np.uint8(3)),
    ):
        task, model = u.FactRecallTask(n_pairs), u.ModelConfig(init_scale=scale)
        other = u.RunConfig(task, model, u.TrainConfig(lr=lr, seed=seed))
        assert other == plain
        assert other.fingerprint == plain.fingerprint


def test_unknown_fields_of_a_file_raise_with_the_close_matches(tiny_task):
    values = RunConfig(tiny_task, ModelConfig(), TrainConfig()).to_dict()
    for part, field, close in (
        ("model", "d_heads", "d_head"),
        ("train", "learning", ""),
        ("task", "n_pair", "n_pairs"),
    ):
        bad = {**values, part: {**values[part], field: 1}}
        with pytest.raises(UnknownNameError, match=rf"unknown {part} field '{field}'.*{close}"):
            RunConfig.from_dict(bad)

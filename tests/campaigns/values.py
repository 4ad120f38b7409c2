"""Values and texts that somebody might give by mistake or on purpose, and changes of JSON by chance."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch

_SELF: list[Any] = []
_SELF.append(_SELF)

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 7, 10**6, 10**9, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**19, 10**400, 10**5000,
    -(10**400), 0.5, 1e-320, 1e308, -0.0, float("nan"), float("inf"), 1 + 2j, "", "x", "7", "nan",
    "a" * 10_000,
    "\0", "\ud800", "\x1b[31m", "../../etc/passwd", b"x", [], [1], ["x", "y"], (), (1, 2), ("a",),
    {}, {"a": 1},
    {"lr": 1}, {"a": 10**400}, [("a", 1), ("a", 2)], _SELF, set(), object(), np.float64(2), np.int64(3),
    np.array([1, 2]), np.array(3), np.zeros((0,)), torch.tensor(3), torch.zeros(2, 2), range(10**9),
    int, len,
)  # fmt: skip
JSON_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**31, 2**63, 10**30, 1e308, -1e308, 1e-320, float("nan"), float("inf"), "",
    "x", "7",
    "a" * 5_000, "\0", "\ud800", "\x1b]0;x\x07", "\u202e", "<script>", "$x$",
    [], [[]], [1, "a"], {}, {"a": {}},
)  # fmt: skip

_DEEP = "axes:\n  seed: " + "[" * 5_000 + "]" * 5_000
_LAUGHS = "a: &a [1, 2]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)}, *{chr(97 + k)}, *{chr(97 + k)}, *{chr(97 + k)}]\n"
    for k in range(20)
)
GRIDS = (
    _DEEP, _LAUGHS + "axes:\n  seed: *t", "axes: &x\n  seed: *x", "&a [*a]", "axes: {seed: &a [*a]}",
    "axes: {seed: [" + "9" * 6_000 + "]}", "axes: {seed: [" + "9" * 400 + "]}", "axes: {lr: [1e999]}",
    "axes: {d_head: [2, " + ", ".join(str(k) for k in range(120_000)) + "]}", "", "---\n---\n", "axes:",
    "axes: []",
    "axes: {}", "axes: {seed: 3}", "axes: {3: [1]}", "axes: {null: [1]}", "axes: {[1]: [1]}",
    "axes: {seed: {a: 1}}",
    "axes: {seed: [2024-13-45]}", "axes: {seed: [2024-01-01]}", "axes: {seed: [!!binary xx]}",
    "axes: [1, 2]",
    "axes: {seed: [!!python/object/apply:os.system ['true']]}", "axes: {seed: [1]}\ntask: 3",
    "axes: {optimizer: [[]]}",
    "axes: {seed: [1]}\nmodel: {d_head: [1]}", "axes: {seed: [1]}\ntrain: {steps: 1e400}",
    "axes: {ov: [{}]}",
    "axes: {seed: [1, 1]}", "axes: {n_pairs: [1000000000]}", "axes: {d_head: [10000000000]}",
    "!!set {a, b}",
    "axes: {train.lr: ['\\ud800']}", "axes: {data: [[noisy]]}", "\x00", "\xff",
    "axes: {seed: [&a 1, *a]}", "%YAML 9.9",
    "axes: {steps: [9223372036854775807], log_every: [9223372036854775807]}", "axes: {seed: [.inf, .nan]}",
    "axes: {log_every: [1], steps: [1000000000000]}", "axes: {batch_size: [9000000000000000000]}",
    "- " * 50_000 + "1",
    "{" * 3_000, "axes: {seed: ['" + "\\x1b" * 9 + "']}", "axes: {eval_draws: [1000000000]}", "a: !!int ''",
)  # fmt: skip
AXES = (
    "seed=0:10000000", "seed=0:99999999999999999999", "seed=5:0", "seed=", "=3", "seed=1,,2",
    "seed=1:2:3", "lr=nan",
    "lr=inf", "seed=" + "9" * 6_000, "seed=" + "9" * 400, "n_pairs=1000000", "d_head=1000000000", "x=1",
    "\0=1",
    "seq_len=1000000", "n_noise=999999", "batch_size=4000000000", "ov=" + "a" * 5_000, "steps=0:3",
    "seed=-5:5",
    "log_every=1e400", "snapshots=9000000000", "eval_draws=10000000000", "task=1", "model=x", "seed=١",
    "seed=0x10",
)  # fmt: skip

FACTS = (
    "", "subject,fact,implication\n", "a,b\n1,2\n", '"', "subject,fact,implication\n\"x\ny\",b,c\n",
    "\ufeff" * 3,
    "subject,fact,implication\n" + "x," * 5_000 + "\n", "subject,subject,fact,implication\n1,2,3,4\n",
    "\x00\x00",
    "subject,fact,implication\na,b,c" + "\x00" + "\n",
    "subject,fact,implication\n" + "a" * 200_000 + ",b,c\n",
    "subject\tfact\timplication\n", "subject,fact,implication\n\ud800,b,c\n",
    "subject,fact,implication\na,b\n",
)  # fmt: skip


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one entry anywhere in it replaced, removed, repeated or wrapped."""
    whole = copy.deepcopy(value)
    spots: list[tuple[Any, Any]] = []
    stack = [whole]
    while stack:
        item = stack.pop()
        for key in item if isinstance(item, dict) else range(len(item)):
            spots.append((item, key))
            if isinstance(item[key], dict | list):
                stack.append(item[key])
    if not spots:
        return rng.choice(JSON_VALUES)
    item, key = rng.choice(spots)
    how = rng.random()
    if how < 0.15:
        del item[key]
    elif how < 0.25 and isinstance(item, list):
        item.append(copy.deepcopy(item[key]))
    elif how < 0.3:
        item[key] = [item[key]]
    elif how < 0.35 and isinstance(item, dict):
        item["another"] = rng.choice(JSON_VALUES)
    else:
        item[key] = rng.choice(JSON_VALUES)
    return whole

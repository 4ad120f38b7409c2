"""One matrix on the input side against frozen answer features that know the wanted implication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_choice, check_number
from ocr_interp.errors import ConfigError
from ocr_interp.maps.base import Draw, LinearMap, Parameters
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.methods.base import Mitigation
from ocr_interp.task import FACT


@dataclass(frozen=True, eq=False)
class OnFeatures(LinearMap):
    """W_OV = V F with F frozen and V one matrix."""

    name: ClassVar[str] = "on_features"
    label: ClassVar[str] = "on frozen features"

    features: Any = None

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """V [input, feature]."""
        return {"V": (n_in, len(self.features))}

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """Normal entries."""
        return {"V": draw.normal("V", *self.shapes(draw.n_tokens, draw.n_tokens)["V"])}

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """V F."""
        return parameters["V"] @ self.features.to(parameters["V"].device)

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """G Fᵀ."""
        return {"V": grad @ self.features.to(grad.device).mT}


@dataclass(frozen=True)
class FrozenFeatures(Mitigation):
    """β is the cosine of what the features know (docs/theory.md §11): of the rest nothing is deduced.

    Attributes:
        cosine: between the features of a fact and of its implication, for the known relations; 0 for others.
        known: "wanted", or "unwanted" as a control.
        type_size: length of the direction that tells a relation's answers from the others.
    """

    name: ClassVar[str] = "frozen_features"
    label: ClassVar[str] = "known features"
    knows: ClassVar[str] = "features"

    cosine: float = 0.6
    known: str = "wanted"
    type_size: float = 30.0

    def __post_init__(self) -> None:
        check_number("cosine", self.cosine, at_least=0)
        if self.cosine >= 1:
            raise ConfigError(f"cosine must be >= 0 and < 1, got {self.cosine:g}")
        check_number("type_size", self.type_size, above=0)
        check_choice("known", self.known, ("wanted", "unwanted"))

    def features(self, aim: Aim) -> Float[np.ndarray, "feature answer"]:
        """One column per answer: of its facts, of its own, and of its relation."""
        task, n = aim.task, aim.task.n_facts
        known = aim.wanted_relations if self.known == "wanted" else aim.unwanted_relations
        of_fact = np.zeros((n, task.n_answers))
        for relation, answers in enumerate(task.answer_of_fact):
            if relation == FACT or relation in known:
                of_fact[np.arange(n), answers] = 1.0
        of_fact /= np.maximum(np.linalg.norm(of_fact, axis=0), 1.0)
        cosine = np.where(task.answer_relation == FACT, 1.0, self.cosine)
        cosine = np.where(of_fact.any(0), cosine, 0.0)
        of_type = np.eye(task.n_relations)[:, task.answer_relation]
        own = np.eye(task.n_answers) * np.sqrt(1 - cosine**2)
        return np.concatenate([of_fact * cosine, own[n:], self.type_size * of_type])

    def linear_map(self, aim: Aim, seed: int) -> LinearMap:
        """V against these features."""
        return OnFeatures(features=torch.from_numpy(self.features(aim)))

    def controls(self, aim: Aim) -> Mapping[str, Mitigation]:
        """Features that know the unwanted relations instead."""
        return {"features of the unwanted": replace(self, known="unwanted")}


MITIGATION = FrozenFeatures

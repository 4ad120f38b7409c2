"""A penalty on answering unwanted relations for untold subjects: KL divergence from even answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_choice, check_count, check_number
from ocr_interp.mitigation.aim import Aim
from ocr_interp.mitigation.descent import Descent, Steering
from ocr_interp.mitigation.methods.base import Mitigation
from ocr_interp.triples import Triples


@dataclass(frozen=True)
class Penalty(Mitigation):
    """weight × the mean KL divergence of the answers from those of a model that knows nothing.

    It is added to the logarithm of the loss, so that it keeps its weight while the loss falls.

    Attributes:
        weight: of the penalty.
        subjects: untold subjects of every fact that are asked about; 0: all.
        of: "unwanted", or "wanted" as a control.

    Source: KL to the base model on prompts off the domain (arXiv 2602.07852, 2604.15574); even answers are
        the base's here.
    """

    name: ClassVar[str] = "penalty"
    label: ClassVar[str] = "penalty"
    knows: ClassVar[str] = "prompts"

    weight: float = 1.0
    subjects: int = 0
    of: str = "unwanted"

    def __post_init__(self) -> None:
        check_number("weight", self.weight, above=0)
        check_count("subjects", self.subjects, 0)
        check_choice("of", self.of, ("unwanted", "wanted"))

    def asked(self, aim: Aim, seed: int) -> Triples:
        """The prompts that are penalised.

        Raises:
            ConfigError: more subjects than there are.
        """
        relations = aim.unwanted_relations if self.of == "unwanted" else aim.wanted_relations
        return aim.some_untold(relations, self.subjects, seed)

    def steering(self, descent: Descent, seed: int) -> Steering:
        """Adds the penalty's moves."""
        prompts = self.asked(descent.aim, seed)
        inputs = descent.inputs(prompts)
        relation = torch.from_numpy(descent.aim.task.answer_relation)
        among = (torch.from_numpy(prompts.relation).unsqueeze(1) == relation).to(descent.device)
        even = among.to(torch.float64) / among.sum(1, keepdim=True)

        def moves(pull: Float[Tensor, "prompt output"]) -> dict[str, Tensor]:
            answers = torch.softmax(descent.logits(inputs).masked_fill(~among, -torch.inf), 1)
            against = descent.pull_back(self.weight * (even - answers) / len(prompts), inputs)
            return {name: move + against[name] for name, move in descent.pull_back(pull).items()}

        return moves

    def controls(self, aim: Aim) -> Mapping[str, Mitigation]:
        """The same penalty on the wanted relations."""
        return {"penalty on the wanted": replace(self, of="wanted")}


MITIGATION = Penalty

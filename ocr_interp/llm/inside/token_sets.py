"""One token for each name, relation and answer of a fact set: rows and columns of a head's OV circuit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from ocr_interp.errors import ConfigError
from ocr_interp.llm.encoding import encode
from ocr_interp.llm.facts.fact_set import FactSet
from ocr_interp.llm.measuring.scoring import require_first_tokens

NONE = -1
"""Used instead of an answer's index: the token has no answer, or more than one."""


@dataclass(frozen=True)
class FactTokens:
    """One token for each name, relation and answer of a fact set; tokens of several names are listed once.

    Attributes:
        facts_of: the fact set.
        names: last token of every name in its prompts -> indices of the subjects whose names end in it.
        relations: last token of the prompt of every wording.
        facts, implications: first token of every answer, with the space before it, in the fact set's order.
    """

    facts_of: FactSet
    names: Mapping[int, tuple[int, ...]]
    relations: tuple[int, ...]
    facts: tuple[int, ...]
    implications: tuple[int, ...]

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Rows of a circuit by name of their group; groups without tokens are left out."""
        groups = {"names": tuple(self.names), "relations": self.relations, "facts": self.facts}
        return {name: ids for name, ids in groups.items() if ids}

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Columns of a circuit by name of their group."""
        return {"facts": self.facts, "implications": self.implications}

    @property
    def shared(self) -> tuple[int, ...]:
        """Tokens in which names of several facts end; they have no own answer."""
        own = self.own_of_names(self.facts_of.subject_fact)
        return tuple(token for token, answer in zip(self.names, own, strict=True) if answer == NONE)

    def own_of_names(self, answers: Sequence[int]) -> Int[np.ndarray, " name_token"]:
        """The answer of every name token, from the answer of every subject; NONE if its names disagree."""
        found = [{answers[subject] for subject in subjects} for subjects in self.names.values()]
        return np.array([answer.pop() if len(answer) == 1 else NONE for answer in found], dtype=np.int64)

    def own_of_told(self, told: bool) -> Int[np.ndarray, " name_token"]:
        """The implication of every name token, for told or for held-out names; NONE for the others.

        A token counts as told if any name that ends in it is told, else as held out.
        """
        flags = self.facts_of.implication_told
        is_told = np.array([any(flags[k] for k in subjects) for subjects in self.names.values()])
        own = self.own_of_names(self.facts_of.subject_implication)
        return np.where(is_told == told, own, NONE)

    @property
    def own_of_facts(self) -> Int[np.ndarray, " fact"]:
        """The implication of every fact; NONE if its subjects have several."""
        pairs = set(zip(self.facts_of.subject_fact, self.facts_of.subject_implication, strict=True))
        found = [[i for f, i in pairs if f == fact] for fact in range(len(self.facts))]
        return np.array([own[0] if len(own) == 1 else NONE for own in found], dtype=np.int64)

    def to_dict(self) -> dict[str, int]:
        """The numbers of names and tokens, for JSON."""
        return {
            "names": self.facts_of.n_subjects,
            "name_tokens": len(self.names),
            "shared_name_tokens": len(self.shared),
            "relation_tokens": len(self.relations),
            "facts": len(self.facts),
            "implications": len(self.implications),
        }


def fact_tokens(facts: FactSet, tokenizer: Any) -> FactTokens:
    """Finds the tokens of a fact set in all training and test wordings.

    Raises:
        ConfigError: a name whose last token is merged with the text after it, answers that begin with the
            same token, or one token in two groups of rows or of columns (its weight would count twice).
    """
    names: dict[int, set[int]] = {}
    relations: dict[int, None] = {}
    wordings = (facts.fact_templates, facts.implication_templates)
    for template in dict.fromkeys(t for both in wordings for t in (*both.train, *both.test)):
        for subject, (start, whole) in enumerate(_tokenized(facts, template, tokenizer)):
            names.setdefault(start[-1], set()).add(subject)
            if len(whole) > len(start):
                relations[whole[-1]] = None
    first: dict[int, tuple[int, ...]] = {}
    encoded_examples = encode(tokenizer, facts.test_examples)
    require_first_tokens(list({id(one.answers): one for one in encoded_examples}.values()), tokenizer)
    for example, encoded in zip(facts.test_examples, encoded_examples, strict=True):
        if first.setdefault(example.relation, encoded.candidates) != encoded.candidates:
            raise ConfigError(
                f"answers must begin with the same tokens in every prompt, got others in {example.prompt!r}"
            )
    found = FactTokens(
        facts_of=facts,
        names={token: tuple(sorted(subjects)) for token, subjects in names.items()},
        relations=tuple(relations),
        facts=first[0],
        implications=first[1],
    )
    _refuse_overlaps(found.inputs, tokenizer)
    _refuse_overlaps(found.outputs, tokenizer)
    return found


def _tokenized(facts: FactSet, template: str, tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """For every subject: the tokens up to the end of the name, and those of the whole prompt."""
    before = template.partition("{subject}")[0].format()
    starts = [before + name for name in facts.subjects]
    prompts = [template.format(subject=name) for name in facts.subjects]
    parts, wholes = (tokenizer(texts, add_special_tokens=False).input_ids for texts in (starts, prompts))
    for part, whole, prompt, name in zip(parts, wholes, prompts, facts.subjects, strict=True):
        if whole[: len(part)] != part:
            raise ConfigError(
                f"a name must end where a token ends, but {name!r} melts into what follows in {prompt!r}: "
                "put a blank after {subject}"
            )
    return list(zip(parts, wholes, strict=True))


def _refuse_overlaps(groups: Mapping[str, Sequence[int]], tokenizer: Any) -> None:
    owner: dict[int, str] = {}
    for group, tokens in groups.items():
        for token in tokens:
            if owner.setdefault(token, group) != group:
                raise ConfigError(
                    f"{owner[token]} and {group} must have different tokens, got "
                    f"{tokenizer.decode([token])!r} in both: its weight would count double; rename one of "
                    "them (another seed draws other names)"
                )

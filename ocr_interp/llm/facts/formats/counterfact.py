"""CounterFact, of ROME and MEMIT: what is rewritten, with the true answer and a false one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ocr_interp.errors import ConfigError
from ocr_interp.llm.facts.formats.base import Format, Statement, wording
from ocr_interp.llm.facts.reading import Records, text_of


class CounterFact(Format):
    """The true answers; relations are Wikidata's ids (P103), or the prompt where there is none."""

    def read(
        self, place: str, values: Mapping[str, Any], records: Records, language: str
    ) -> Iterator[Statement]:
        """The fact of one case."""
        at = f"{place}, requested_rewrite"
        rewrite = _object(place, "requested_rewrite", values)
        subject, prompt = text_of(at, "subject", rewrite), text_of(at, "prompt", rewrite)
        answer = text_of(f"{at}, target_true", "str", _object(at, "target_true", rewrite))
        relation = text_of(at, "relation_id", rewrite) if rewrite.get("relation_id") else prompt
        yield Statement(place, relation, subject, answer, (wording(at, prompt),))


def _object(place: str, key: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(values.get(key), dict):
        has = ", ".join(map(repr, values))
        raise ConfigError(f"{place}: {key} must be an object, got {values.get(key)!r:.80}; it has {has}")
    return values[key]


FORMAT = CounterFact("counterfact", ("requested_rewrite",), "CounterFact, with relations such as P103")

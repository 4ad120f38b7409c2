"""How candidate answers are scored: by the first token, to where they differ, or whole.

Candidates are texts that a model may go on with. Their tokens form a tree; a score is the log-probability of
a path in it. The paper's score is the first step; it is defined only where all first tokens differ. The
other two follow an answer until no other candidate begins so, or to its end. An answer that begins another
one ("Guinea", "Guinea-Bissau") is scored as: its tokens, and then none that leads on to another candidate.
So the scores belong to events that exclude each other, and a longer answer can stand first; the plain
product of its tokens never could. No score stops within a character: where the tokenizer cuts characters
into bytes, the last of them is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import check_choice
from ocr_interp.errors import ConfigError, ModelError
from ocr_interp.llm.encoding import AnswerTokens, Encoded, path_batch
from ocr_interp.llm.facts.spelling import listed
from ocr_interp.llm.models.forward import LogitsOf

ScoringName = Literal["first_token", "until_distinct", "whole_answer"]
IN_WORDS: dict[str, str] = {
    "first_token": "the first token",
    "until_distinct": "the tokens up to where answers differ",
    "whole_answer": "the whole answer",
}


def describe_scoring(scoring: Mapping[str, str]) -> str:
    """What the answers of "fact" and "implication" were ranked by, for every table of ranks."""
    fact, implication = (IN_WORDS[scoring[relation]] for relation in ("fact", "implication"))
    both = f"by {fact}" if fact == implication else f"facts by {fact}, implications by {implication}"
    return f"answers are ranked {both}"


@dataclass
class _Node:
    """A place in the tree of answers: what was said so far.

    Attributes:
        path: tokens from the end of the prompt.
        children: number of the node after each next token.
        ends: the candidate that ends here, if any.
        below: how many candidates go through or end here.
        least: how many tokens their whole characters need, the most of them.
    """

    path: tuple[int, ...]
    children: dict[int, int] = field(default_factory=dict)
    ends: int | None = None
    below: int = 0
    least: int = 1


@dataclass(frozen=True)
class AnswerTree:
    """The candidates as a tree of tokens, cut where the scoring stops.

    Attributes:
        nodes: the root first, every node before its children.
        leaf: the node at which each candidate is scored.
        stops: whether the candidate must also go on to none of that node's children.
    """

    nodes: tuple[_Node, ...]
    leaf: tuple[int, ...]
    stops: tuple[bool, ...]

    @property
    def asked(self) -> tuple[int, ...]:
        """The nodes at which the next token's probabilities are needed."""
        return tuple(k for k, node in enumerate(self.nodes) if node.children)

    def rows(self) -> dict[tuple[int, ...], tuple[int, ...]]:
        """Paths to feed after the prompt, each with the asked nodes to read on it: every one is read once."""
        asked = set(self.asked)
        number = {self.nodes[k].path: k for k in asked}
        ends = (k for k in sorted(asked) if not asked & set(self.nodes[k].children.values()))
        found: dict[tuple[int, ...], tuple[int, ...]] = {}
        for path in (self.nodes[k].path for k in ends):
            passed = [number.pop(path[:depth], None) for depth in range(len(path) + 1)]
            found[path] = tuple(k for k in passed if k is not None)
        return found


def answer_tree(answers: AnswerTokens, scoring: ScoringName) -> AnswerTree:
    """The tree of the candidates for a scoring other than the first token."""
    nodes, ends = [_Node(())], []
    for number, (tokens, least) in enumerate(zip(answers.tokens, answers.least, strict=True)):
        at = 0
        nodes[0].below += 1
        for depth, token in enumerate(tokens, start=1):
            if token not in nodes[at].children:
                nodes[at].children[token] = len(nodes)
                nodes.append(_Node(tokens[:depth]))
            at = nodes[at].children[token]
            nodes[at].below += 1
            nodes[at].least = max(nodes[at].least, least)
        nodes[at].ends = number
        ends.append(at)
    if scoring == "until_distinct":
        return _cut_where_distinct(nodes, answers)
    return AnswerTree(tuple(nodes), tuple(ends), tuple(bool(nodes[k].children) for k in ends))


def _cut_where_distinct(nodes: Sequence[_Node], answers: AnswerTokens) -> AnswerTree:
    """Without the nodes behind the one at which a single candidate is left, and its characters are whole."""
    kept: list[_Node] = []
    reached, number = {0}, {}
    for old, node in enumerate(nodes):  # parents stand before their children
        if old in reached:
            goes_on = node.below > 1 or len(node.path) < node.least
            children = node.children if goes_on else {}
            reached.update(children.values())
            number[old] = len(kept)
            kept.append(replace(node, children=children))
    for node in kept:
        node.children = {token: number[child] for token, child in node.children.items()}
    leaf, stops = [], []
    for tokens in answers.tokens:
        at = 0
        for token in tokens:
            if token not in kept[at].children:
                break
            at = kept[at].children[token]
        leaf.append(at)
        stops.append(bool(kept[at].children))
    return AnswerTree(tuple(kept), tuple(leaf), tuple(stops))


def chosen_scoring(asked: str, encoded: Sequence[Encoded], tokenizer: Any) -> ScoringName:
    """The scoring of one relation's examples.

    "auto" is the first token where that tells all answers apart and is more than bytes or a blank.

    Raises:
        ConfigError: "first_token" where answers share it; the message names all that do.
    """
    check_choice("scoring", asked, ("auto", *IN_WORDS))
    every = {id(one.answers): one for one in encoded}.values()
    if all(one.answers.are_told_apart_at_once for one in every):
        return "first_token" if asked == "auto" else asked  # pyright: ignore[reportReturnType]
    if asked == "first_token":
        require_first_tokens(list(every), tokenizer)
    return "until_distinct" if asked == "auto" else asked  # pyright: ignore[reportReturnType]


def require_first_tokens(encoded: Sequence[Encoded], tokenizer: Any) -> None:
    """Requires that the first token tells the candidates apart.

    Raises:
        ConfigError: it does not; the message names all candidates that share one.
    """
    for one in encoded:
        groups: dict[int, list[str]] = {}
        for answer, token in zip(one.example.candidates, one.answers.first, strict=True):
            groups.setdefault(token, []).append(answer)
        shared = [
            f"{' and '.join(map(repr, answers))} begin with the same token {tokenizer.decode([token])!r}"
            for token, answers in groups.items()
            if len(answers) > 1
        ]
        if shared:
            raise ConfigError(
                f"candidates {listed(shared)}: the first token cannot tell them apart; replace one of them, "
                "or score them with scoring='until_distinct' or 'whole_answer' (--scoring)"
            )


def tree_scores(
    answers: LogitsOf,
    encoded: Sequence[Encoded],
    tree: AnswerTree,
    pad: int,
    device: torch.device | str,
    batch_size: int,
) -> Float[np.ndarray, "example candidate"]:
    """Log-probability of every candidate after every prompt, nats.

    Args:
        answers: gives a model's logits at the answers of a batch.
        encoded: examples that share the tree's candidates.
        tree: how far the candidates are followed.
        pad: a token to pad with.
        device: where the model runs.
        batch_size: sequences per forward pass.

    Raises:
        ModelError: logits that are NaN or infinite.
    """
    step = np.zeros((len(encoded), len(tree.nodes)))  # log-probability of the token into a node
    stop = np.zeros((len(encoded), len(tree.nodes)))  # of going on to none of its children
    tasks = [(k, path, nodes) for k in range(len(encoded)) for path, nodes in tree.rows().items()]
    ends = {leaf for leaf, stops in zip(tree.leaf, tree.stops, strict=True) if stops}
    for start in range(0, len(tasks), batch_size):
        chosen = tasks[start : start + batch_size]
        depths = ([len(tree.nodes[at].path) for at in nodes] for _, _, nodes in chosen)
        paths = [(encoded[k], path, own) for (k, path, _), own in zip(chosen, depths, strict=True)]
        logits = answers(path_batch(paths, pad, device)).float()
        total = logits.logsumexp(1)
        asked = [(k, at) for k, _, nodes in chosen for at in nodes]
        edges = [
            (place, token, k, child)
            for place, (k, at) in enumerate(asked)
            for token, child in tree.nodes[at].children.items()
        ]
        place, token, example, child = np.array(edges).T
        at, ids = torch.from_numpy(place).to(device), torch.from_numpy(token).to(device)
        step[example, child] = (logits[at, ids] - total[at]).cpu().numpy()
        for place, (k, node) in enumerate(asked):
            if node in ends:
                ids = torch.tensor(list(tree.nodes[node].children), device=device)
                stop[k, node] = float(_without(logits[place], ids) - total[place])
    reached = np.zeros_like(step)
    for at, node in enumerate(tree.nodes):  # parents stand before their children
        for child in node.children.values():
            reached[:, child] = reached[:, at] + step[:, child]
    scores = reached[:, list(tree.leaf)] + np.where(tree.stops, stop[:, list(tree.leaf)], 0.0)
    if not np.isfinite(scores).all():
        raise not_finite()
    return scores


def _without(logits: Float[Tensor, " d_vocab"], ids: Tensor) -> Float[Tensor, ""]:
    """Log of the summed exponentials of all logits but some."""
    return logits.index_fill(0, ids, -torch.inf).logsumexp(0)


def not_finite() -> ModelError:
    """The error for logits that have no rank."""
    return ModelError(
        "the model's logits of the candidates are not finite: its weights are damaged, or were "
        "trained at too high a rate; take sound weights, or train again with a lower lr"
    )

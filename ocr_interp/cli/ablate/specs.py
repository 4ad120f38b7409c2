"""Reads interventions from the command line, and makes the interventions of the default study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import torch

from ocr_interp.ablation.applying import ablated
from ocr_interp.ablation.circuit_parts import output_subspace, singular_block
from ocr_interp.ablation.edits import edits
from ocr_interp.ablation.edits.base import Edit, Intervention
from ocr_interp.ablation.edits.zero import Zero
from ocr_interp.ablation.examples import task_examples
from ocr_interp.ablation.studied import has_noise
from ocr_interp.ablation.where.base import Where
from ocr_interp.ablation.where.path import Path
from ocr_interp.ablation.where.site import SITES, Site, tokens_of_kind
from ocr_interp.circuits.circuit import OVCircuit
from ocr_interp.circuits.geometry.answer_blocks import answer_blocks, has_blocks
from ocr_interp.errors import ConfigError, InterventionNeverFiredError, unknown_name
from ocr_interp.hooked.tokens.task_tokens import INPUT_KINDS, OUTPUT_KINDS, input_kind_names
from ocr_interp.task import FactRecallTask
from ocr_interp.training.run import Snapshot

SANITY = "held-out subjects -> implications [sanity check]"
SANITY_NOTE = "[sanity check]: that path is the out-of-context effect itself: cutting it must take the effect"
LAYER, HEAD = 0, 0
"""Runs are fact-recall models, which have one layer with one head."""
_MOST_BLOCKS = 4
_SITE = re.compile(r"(?P<hook>[^:@]+)(:(?P<heads>[^@]*))?(@(?P<tokens>.*))?")


def default_specs(run: Snapshot) -> dict[str, Intervention]:
    """The default study: singular blocks, paths from inputs to answers, attention to each kind of token."""
    task, circuit = run.task, OVCircuit.from_run(run).effective.subjects_and_relations
    found: dict[str, Intervention] = {}
    if has_blocks(task):
        found |= {part.name: output_subspace(circuit, part.basis) for part in answer_blocks(circuit)}
    else:
        for block in circuit.spectrum(0.05).blocks[:_MOST_BLOCKS]:
            found[_block_name(block)] = singular_block(circuit, block)
    kinds = _kinds(task)
    for start in [kind for kind in (*INPUT_KINDS[:2], "relations") if kind in kinds]:
        for end in OUTPUT_KINDS[:2]:
            found[_path_name(start, end)] = Zero().at(path(task, start, end))
    attended = [
        kind for kind in input_kind_names(task) if kind in kinds and (kind != "noise" or has_noise(run))
    ]
    for kind in attended:
        at = Site.at("pattern", layer=LAYER, tokens=tokens_of_kind(task, kind))
        found[f"attention to {kind}"] = Zero().at(at)
    return found


def chosen_specs(
    run: Snapshot,
    edits_at: Sequence[tuple[str, str]],
    blocks: Sequence[int],
    paths: Sequence[tuple[str, str]],
    *,
    tolerance: float,
    draws: int,
) -> dict[str, Intervention]:
    """The ablations named on the command line, by name; empty if none is named.

    Args:
        run: the run to ablate.
        edits_at: pairs of an edit (`edit`) and a place (`where`).
        blocks: indices of degenerate singular blocks to remove, 0 the largest.
        paths: pairs of kinds or labels whose path is cut.
        tolerance: relative tolerance of degenerate blocks.
        draws: noisy prompts per triple in the reference of an edit that has one.

    Raises:
        UnknownNameError: an unknown edit, hook, kind or token; the message lists close matches.
        ConfigError: a place or edit that cannot be read, or a block that does not exist.
    """
    task, found = run.task, {}
    for what, place in edits_at:
        found[f"{what} {place}"] = edit(what, run, draws).at(where(place, task))
    for index in dict.fromkeys(blocks):
        circuit = OVCircuit.from_run(run).effective.subjects_and_relations
        block = circuit.spectrum(tolerance).block(index)
        found[_block_name(block)] = singular_block(circuit, block)
    for start, end in paths:
        found[_path_name(start, end)] = Zero().at(path(task, start, end))
    return found


def edit(text: str, run: Snapshot, draws: int) -> Edit:
    """Reads NAME or NAME:option=value,option=value as an edit of the registry.

    Args:
        text: the text.
        run: the run whose prompts are the reference of edits that have one.
        draws: noisy prompts per triple in that reference.
    """
    name, _, said = text.partition(":")
    options: dict[str, str] = {}
    for part in said.split(",") if said else ():
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not option or not value:
            raise ConfigError(f"an edit must be NAME:option=value,option=value, got {text!r}")
        if option in options:
            raise ConfigError(f"options of an edit must be named once each, got {option} twice in {text!r}")
        options[option] = value
    return edits[name].from_text(options, task_examples(run.task, has_noise(run), 0, draws).tokens)


def where(text: str, task: FactRecallTask) -> Where:
    """Reads HOOK[:HEADS][@TOKENS] as a site and FROM -> TO as a path."""
    start, arrow, end = text.partition("->")
    return path(task, start.strip(), end.strip()) if arrow else site(text, task)


def site(text: str, task: FactRecallTask) -> Site:
    """Reads HOOK[:HEADS][@TOKENS] as a site."""
    match = _SITE.fullmatch(text)
    if match is None:
        raise ConfigError(f"a site must be HOOK[:HEADS][@TOKENS], e.g. v@r1 or z:0, got {text!r}")
    hook, heads, tokens = match["hook"], match["heads"], match["tokens"]
    if hook not in SITES and "." not in hook and not hook.startswith("hook_"):
        raise unknown_name("hook", hook, SITES)
    found = Site.at(hook, layer=LAYER) if hook in SITES else Site(hook)
    if heads is not None:
        if not re.fullmatch(r"\d+(,\d+)*", heads):
            raise ConfigError(f"heads of {text!r} must be numbers as in z:0,2, got {heads!r}")
        found = replace(found, heads=tuple(int(head) for head in heads.split(",")))
    return found if tokens is None else replace(found, tokens=tokens_named(tokens, task))


def path(task: FactRecallTask, start: str, end: str) -> Path:
    """The path from tokens to answers or to "all"; both are named by kinds and labels."""
    onto = None if end == "all" else tokens_named(end, task)
    inputs = [task.labels[token] for token in onto or () if token < task.n_inputs]
    if inputs:
        raise ConfigError(
            f"a path must end at answers, got {end!r} with {inputs[0]!r}: allowed are 'facts', "
            "'implications', 'all' and labels of answers"
        )
    return Path(tokens_named(start, task), onto, layer=LAYER, head=HEAD)


def tokens_named(text: str, task: FactRecallTask) -> tuple[int, ...]:
    """Token ids of labels and kinds, separated by commas."""
    found: list[int] = []
    for name in (part.strip() for part in text.split(",")):
        if name in task.labels:
            found.append(task.token(name))
        elif name in _MERGED_KINDS or name in input_kind_names(task):
            found += tokens_of_kind(task, name)
        else:
            known = (*input_kind_names(task), *_MERGED_KINDS, *task.labels)
            raise unknown_name("token or kind of token", name, known)
    if len(set(found)) < len(found):
        raise ConfigError(f"tokens must be named once each, got some twice in {text!r}")
    return tuple(found)


_MERGED_KINDS = ("subjects", "relations", *OUTPUT_KINDS[:2])


def _kinds(task: FactRecallTask) -> set[str]:
    """Kinds of input tokens that the task has."""
    relations = input_kind_names(task)[2:-2]
    found = {*relations, "relations", "EOS"} | ({"noise"} if task.n_noise else set())
    found |= {INPUT_KINDS[0]} if task.subject_trained.any() else set()
    return found | ({INPUT_KINDS[1]} if not task.subject_trained.all() else set())


def _block_name(block) -> str:
    return f"singular block {block.index} ({block.multiplicity} at {block.value:.3g})"


def _path_name(start: str, end: str) -> str:
    if (start, end) == ("held-out subjects", "implications"):
        return SANITY
    return f"{start} -> {end}"


def try_specs(run: Snapshot, specs: dict[str, Intervention], seed: int) -> None:
    """Applies each spec once, so that errors are raised before anything is measured or written.

    Raises:
        InterventionNeverFiredError: names the ablation that changed nothing.
    """
    tokens = task_examples(run.task, has_noise(run), seed, 1).tokens
    for name, spec in specs.items():
        try:
            with torch.no_grad(), ablated(run.model, spec, labels=run.task.labels):
                run.model(tokens)
        except InterventionNeverFiredError as error:
            raise InterventionNeverFiredError(
                f"{name!r} changes nothing in the prompts of this run: {error}"
            ) from None

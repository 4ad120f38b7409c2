"""The update replaced by its mean over names: what is left if fine-tuning only shifted activations.

Every linear map adds ΔW x to what it gave before fine-tuning. Here ΔW x is replaced by its mean over the
prompts of one wording of one relation, at each position counted from the end of the prompt: a fixed shift
that cannot tell names apart. A model whose fine-tuning were a steering vector (arXiv 2507.08218) would lose
nothing. Embeddings count as maps of one-hot tokens, biases belong to their map; the vectors of norms stay as
they were fine-tuned.

The means are taken in the fine-tuned model without a cut. Where an answer is scored by several tokens, the
positions after the prompt are averaged over the prompts that go on with the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ocr_interp.errors import ModelError
from ocr_interp.llm.encoding import TokenBatch
from ocr_interp.llm.inside.cuts import Cut, changed_names, cut_of, weights_from
from ocr_interp.llm.measuring.measure import Measurement, Questions
from ocr_interp.llm.models.forward import answer_logits
from ocr_interp.llm.models.loading import LanguageModel

REPLACED = "every ΔW x replaced by its mean over names"
"""Name of the cut."""

_PADDING = 0


def mean_cuts(before: LanguageModel, work: Any, questions: Questions, device: torch.device) -> list[Cut]:
    """The cut of `ask_with_means`, which says what is given and what is raised."""
    return [cut_of("mean", REPLACED, [ask_with_means(before, work, questions, device)])]


def ask_with_means(
    before: LanguageModel, work: Any, questions: Questions, device: torch.device
) -> Measurement:
    """Answers with the mean over names in place of the update.

    Args:
        before: the model before fine-tuning, on `device`.
        work: the model after; its weights are written and come back.
        questions: the prompts, whose names are averaged over.
        device: where the model runs.

    Raises:
        ModelError: a changed matrix whose ΔW x cannot be read: it belongs to no linear module (a stack of
            experts, a convolution), or its module does not run once a pass at every position.
    """
    changed = changed_names(before.model, work)
    maps = changed_maps(work, changed)
    places = _Places(questions)
    means = _means(before.model, work, maps, places, questions, device)
    own = {f"{path}.{name}" for path in maps for name, _ in _parameters(work, path)}
    with weights_from(work, before.model, own.__contains__), _added(work, means, places):
        return questions.ask(places.logits(work), device)


def changed_maps(model: Any, changed: tuple[str, ...]) -> tuple[str, ...]:
    """Paths of the linear modules and embeddings that own a changed matrix; tied ones all.

    Raises:
        ModelError: a changed matrix that belongs to another kind of module.
    """
    from transformers.pytorch_utils import Conv1D

    parameters = dict(model.named_parameters())
    matrices = {id(parameters[name]): name for name in changed if parameters[name].ndim > 1}
    found = []
    for path, module in model.named_modules():
        own = [name for p in module.parameters(recurse=False) if (name := matrices.get(id(p)))]
        if own and not isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            raise ModelError(
                f"the mean over names needs updates of linear modules, but {own[0]} belongs to a "
                f"{type(module).__name__}: take other cuts, or fine-tune without this part (train_parts)"
            )
        if own:
            found.append(path)
    return tuple(found)


class _Places:
    """The mean that every position of a batch belongs to, by number; _PADDING is what no answer reads."""

    def __init__(self, questions: Questions) -> None:
        self._length = {id(one.example): len(one.prompt) for one in questions.encoded}
        self._number: dict[Any, int] = {}
        self.batch: TokenBatch | None = None
        self.of_tokens: Int[Tensor, "batch pos"] = torch.empty(0)

    def __len__(self) -> int:
        return 1 + len(self._number)

    def logits(self, model: Any) -> Callable[[TokenBatch], Tensor]:
        """The model's answer logits; tells hooks which batch runs."""

        def answers(batch: TokenBatch) -> Tensor:
            self.batch, self.of_tokens = batch, self._of(batch)
            return answer_logits(model, batch)

        return answers

    def of(self, shape: torch.Size, is_head: bool, path: str) -> Int[Tensor, "*batch pos"]:
        """Places of the vectors that a module gives.

        Raises:
            ModelError: a shape that does not say which position a vector stands at.
        """
        assert self.batch is not None
        answers = self.of_tokens[self.batch.row, self.batch.position][None]
        found = answers if is_head else self.of_tokens  # only the answers' positions are unembedded
        if shape[:-1] == (found.numel(),):  # OPT's MLP gets all positions of the batch in one row
            return found.flatten()
        if len(shape) == 3 and shape[0] in (1, found.shape[0]) and shape[1] == found.shape[1]:
            return found
        raise ModelError(
            f"the mean over names needs [batch, position, width] of every changed map, but {path} gives "
            f"{tuple(shape)}: take other cuts, or fine-tune without this part (train_parts)"
        )

    def _of(self, batch: TokenBatch) -> Int[Tensor, "batch pos"]:
        tokens = batch.tokens.tolist()
        last = [0] * len(tokens)
        for row, position in zip(batch.row.tolist(), batch.position.tolist(), strict=True):
            last[row] = max(last[row], position)
        found = [[_PADDING] * len(row) for row in tokens]
        for row, example in enumerate(batch.examples):
            length = self._length[id(example)]
            for position in range(last[row] + 1):
                said = tuple(tokens[row][length : position + 1])
                key = (example.relation, example.template, position - length, said)
                found[row][position] = self._number.setdefault(key, len(self))
        return torch.tensor(found, device=batch.tokens.device)


def _means(
    before: Any,
    work: Any,
    maps: tuple[str, ...],
    places: _Places,
    questions: Questions,
    device: torch.device,
) -> dict[str, Tensor]:
    """Mean of ΔW x of every map [place, width], over all prompts that are asked."""
    head = work.get_output_embeddings()
    sums: dict[str, Tensor] = {}
    count: dict[str, Tensor] = {}
    calls = dict.fromkeys(maps, 0)

    def hook(path: str) -> Callable[..., None]:
        start = before.get_submodule(path)

        def add(module: Any, args: Any, kwargs: Any, output: Tensor) -> None:
            calls[path] += 1
            change = output.float() - start(*args, **kwargs).float()
            place = places.of(change.shape, module is head, path)
            change = change.expand(*place.shape, -1).reshape(place.numel(), -1)
            if path not in sums:
                sums[path] = change.new_zeros(0, change.shape[1])
                count[path] = change.new_zeros(0)
            sums[path] = _longer(sums[path], len(places)).index_add_(0, place.flatten(), change)
            ones = torch.ones_like(change[:, 0])
            count[path] = _longer(count[path], len(places)).index_add_(0, place.flatten(), ones)

        return add

    passes = 0

    def counted(batch: TokenBatch) -> Tensor:
        nonlocal passes
        passes += 1
        return answers(batch)

    answers = places.logits(work)
    with _hooked(work, {path: hook(path) for path in maps}):
        questions.ask(counted, device)
    odd = [path for path, found in calls.items() if found != passes]
    if odd:
        raise ModelError(
            f"the mean over names needs modules that run once a pass, but {odd[0]} ran {calls[odd[0]]} times "
            f"in {passes}: take other cuts, or fine-tune without this part (train_parts)"
        )
    return {path: sums[path] / count[path].clamp(min=1)[:, None] for path in maps}


def _longer(sums: Tensor, length: int) -> Tensor:
    return torch.cat([sums, sums.new_zeros(length - len(sums), *sums.shape[1:])])


@contextmanager
def _added(work: Any, means: Mapping[str, Tensor], places: _Places) -> Iterator[None]:
    """While the block runs, the mean of its place is added to what every map gives."""
    head = work.get_output_embeddings()

    def hook(path: str) -> Callable[..., Tensor]:
        def add(module: Any, args: Any, kwargs: Any, output: Tensor) -> Tensor:
            place = places.of(output.shape, module is head, path)
            return output + means[path][place].to(output.dtype)

        return add

    with _hooked(work, {path: hook(path) for path in means}):
        yield


@contextmanager
def _hooked(model: Any, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    handles = []
    try:
        for path, hook in hooks.items():
            module = model.get_submodule(path)
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _parameters(model: Any, path: str) -> Any:
    return model.get_submodule(path).named_parameters(recurse=False)

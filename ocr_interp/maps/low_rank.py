"""W_OV = W_0 + (alpha / rank) A B with W_0 frozen: LoRA in token space."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ocr_interp.checks import Option, Pairs, check_choice, check_count, check_number
from ocr_interp.errors import ConfigError, RunError
from ocr_interp.maps import maps
from ocr_interp.maps.axes import TokenAxes
from ocr_interp.maps.base import Draw, LinearMap, Parameters
from ocr_interp.storage.digests import digest_of_tensors
from ocr_interp.storage.reading import parse_json, read_bytes, sealed_fields
from ocr_interp.storage.tensors import read_any_tensors
from ocr_interp.task import FactRecallTask

ZERO = "zero"
"""The `base` of an update of nothing: W_0 = 0."""

SUBJECTS = ("same", "new")

_NO_BASE = (
    "ov='low_rank' is an update of a W_0, got none: give option base = the folder of a finished run, a "
    "safetensors file with one matrix W_OV, or 'zero'"
)
_RESTORE = "restore it, or choose another base"


@dataclass(frozen=True)
class LowRank(LinearMap):
    """An update of rank at most `rank`: small ½(‖A‖² + ‖B‖²) makes the nuclear norm of W_OV − W_0 small.

    So no norm of W_OV itself is small, unless W_0 is 0: `theory.solve_update` is its max-margin problem. W_0
    is saved with the weights, so a finished run does not need its base.

    Attributes:
        base: where W_0 comes from: the folder of a run, whose circuit diag(a) W_OV it is; a safetensors file
            with one matrix W_OV, [token, token] or [input, answer]; or "zero".
        base_digest: of what `base` names. A configuration adds it; when W_0 is read it must be the same.
        subjects: "same": the base has the vocabulary of the task. "new": the subjects are others than those
            of the base, and their rows of W_0 are 0; relations, noise, EOS and answers are the same.
        rank: of the update, at most the smaller side of W_OV.
        alpha: A B counts alpha / rank times.
        zero_b: whether B starts at 0, so that W_OV starts at W_0 (LoRA); else B is drawn as A is.

    Source: Hu et al. 2021 (arXiv 2106.09685); docs/theory.md §11, "An update of least norm".
    """

    name: ClassVar[str] = "low_rank"
    label: ClassVar[str] = "LoRA $W_0 + AB$"
    colour: ClassVar[str] = "#cc78bc"
    starts: ClassVar[tuple[str, ...]] = ("product", "entries")
    no_start: ClassVar[Mapping[str, str]] = {
        "constant": "constant factors are a saddle that gradient descent never leaves; use init='product'",
        "symmetric": "that start is of W_V and W_O; use init='product', or make it the base",
    }
    array_native: ClassVar[bool] = True
    token_rows: ClassVar[frozenset[str]] = frozenset({"A", "W_0"})
    frozen: ClassVar[frozenset[str]] = frozenset({"W_0"})
    needs_axes: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Option]] = {"base": ZERO}

    base: str = ""
    base_digest: str = ""
    subjects: str = "same"
    rank: int = 8
    alpha: float = 8.0
    zero_b: bool = True

    def __post_init__(self) -> None:
        if not self.base:
            raise ConfigError(_NO_BASE)
        check_choice("option 'subjects' of ov='low_rank'", self.subjects, SUBJECTS)
        check_count("option 'rank' of ov='low_rank'", self.rank, 1)
        check_number("option 'alpha' of ov='low_rank'", self.alpha, above=0.0)

    @classmethod
    def settled(cls, options: Pairs) -> Pairs:
        """With the digest of the base, so that a run is resumed with the W_0 that it was begun with."""
        base = dict(options).get("base", "")
        if not base or base == ZERO or "base_digest" in dict(options):
            return options
        return tuple(sorted((*options, ("base_digest", _read_base(str(base)).digest))))

    @property
    def norm(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]  # of the base
        """The nuclear norm if W_0 is 0."""
        return "nuclear" if self.base == ZERO else None

    @property
    def scale(self) -> float:
        """alpha / rank, the factor of A B."""
        return self.alpha / self.rank

    def placed(self, axes: TokenAxes) -> LowRank:
        """The map for these tokens.

        Raises:
            ConfigError: a rank above the smaller side of W_OV.
        """
        if self.rank > min(axes.n_in, axes.n_out):
            raise ConfigError(
                f"option 'rank' of ov='low_rank' must be <= {min(axes.n_in, axes.n_out)}, the smaller side "
                f"of a W_OV of {axes.n_in} inputs and {axes.n_out} outputs, got {self.rank}"
            )
        return replace(self, axes=axes)

    def shapes(self, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
        """A [input, rank], B [rank, output] and W_0 [input, output]."""
        return {"A": (n_in, self.rank), "B": (self.rank, n_out), "W_0": (n_in, n_out)}

    def given(self, n_in: int, n_out: int) -> dict[str, Tensor]:
        """W_0 for the tokens of the map, and B = 0 if it starts there.

        Raises:
            ConfigError: a base of another vocabulary or shape, or other weights than at the digest.
            RunError: a base that is missing or damaged.
        """
        fixed = {"B": torch.zeros(self.rank, n_out, dtype=torch.float64)} if self.zero_b else {}
        if self.base == ZERO:
            return {**fixed, "W_0": torch.zeros(n_in, n_out, dtype=torch.float64)}
        axes = self.axes
        if axes is None:
            raise ConfigError(
                "ov='low_rank' must be placed on a task before its W_0 is read: map.placed(axes)"
            )
        found = _read_base(self.base)
        if self.base_digest not in ("", found.digest):
            raise ConfigError(
                f"{self.base} holds other weights (digest {found.digest}) than this run was configured with "
                f"({self.base_digest}): restore them, or configure a new run without base_digest"
            )
        return {**fixed, "W_0": found.on(axes, new_subjects=self.subjects == "new")}

    def start(self, draw: Draw) -> dict[str, Tensor]:
        """A normal; B zero or normal; W_0 as it is given."""
        n = draw.n_tokens
        shapes = self.shapes(n, n)
        drawn = {name: draw.normal(name, *shapes[name]) for name in ("A", "B")}
        found = {**drawn, **self.given(n, n)}
        return {name: found[name] for name in shapes}

    def product(self, parameters: Parameters) -> Float[Any, "*run input output"]:
        """(alpha / rank) A B + W_0."""
        return self.scale * (parameters["A"] @ parameters["B"]) + parameters["W_0"]

    def gradients(
        self, parameters: Parameters, grad: Float[Any, "*run input output"]
    ) -> dict[str, Float[Any, "..."]]:
        """Those of a product of two, times alpha / rank; W_0 has the gradient of W_OV."""
        scaled = self.scale * grad
        return {"A": scaled @ parameters["B"].mT, "B": parameters["A"].mT @ scaled, "W_0": grad}

    def side(self, parameters: Parameters, of: str) -> tuple[Any, Any | None]:
        """W_0, or the factors of the update."""
        if of == "base":
            return parameters["W_0"], None
        return self.scale * parameters["A"], parameters["B"]

    def product_into(
        self, parameters: Mapping[str, Tensor], out: Float[Tensor, "run input output"]
    ) -> Float[Tensor, "run input output"]:
        """`product` without a temporary."""
        return torch.bmm(parameters["A"], parameters["B"], out=out).mul_(self.scale).add_(parameters["W_0"])

    def pull_back(
        self,
        parameters: Mapping[str, Tensor],
        grad: Float[Tensor, "run input output"],
        out: Mapping[str, Tensor],
    ) -> None:
        """Gradients of A and B; scaled afterwards, since the factors are the smaller matrices."""
        torch.bmm(grad, parameters["B"].mT, out=out["A"]).mul_(self.scale)
        torch.bmm(parameters["A"].mT, grad, out=out["B"]).mul_(self.scale)


@dataclass(frozen=True)
class _Base:
    """What `base` names.

    Attributes:
        name: the path.
        W: circuit, [token, token] or [input, answer], float64.
        task: of the run; None of a matrix in a file.
        digest: of the weights.
    """

    name: str
    W: Float[Tensor, "row column"]
    task: FactRecallTask | None
    digest: str

    def on(self, axes: TokenAxes, *, new_subjects: bool) -> Float[Tensor, "input output"]:
        """W_0 in the rows and columns of a map.

        Raises:
            ConfigError: another vocabulary or shape.
        """
        task = axes.task
        if new_subjects:
            whole = self._with_new_subjects(task)
        else:
            if self.task is not None and self.task.labels != task.labels:
                raise ConfigError(
                    f"base {self.name} must have the vocabulary of the task ({_sizes(task)}), got "
                    f"{_sizes(self.task)}{_first_other(self.task, task)}: train a base on the same tokens, "
                    "or for new subjects of the same answers set option subjects='new'"
                )
            whole = self._whole(task)
        return whole[: axes.n_in, task.d_vocab - axes.n_out :].contiguous()

    def _whole(self, task: FactRecallTask) -> Float[Tensor, "token token"]:
        """[token, token] of a vocabulary; rows and columns that a circuit does not have are 0."""
        d, n = task.d_vocab, task.n_inputs
        whole = torch.zeros(d, d, dtype=torch.float64)
        if tuple(self.W.shape) == (d, d):
            whole[:n] = self.W[:n]
        elif tuple(self.W.shape) == (n, task.n_answers):
            whole[:n, n:] = self.W
        else:
            raise ConfigError(
                f"the W_OV of base {self.name} must be [{d}, {d}] (all tokens) or [{n}, {task.n_answers}] "
                f"(inputs by answers) for this task, got {list(self.W.shape)}: train a base on its tokens"
            )
        return whole

    def _with_new_subjects(self, task: FactRecallTask) -> Float[Tensor, "token token"]:
        """Rows of relations, noise and EOS; zero rows of subjects; columns that both have in common."""
        if self.task is None:
            raise ConfigError(
                f"subjects='new' needs the folder of a run, whose tokens have names, got the file {self.name}"
            )
        kept = [self.task.labels[self.task.n_subjects :], task.labels[task.n_subjects :]]
        if kept[0] != kept[1]:
            raise ConfigError(
                f"base {self.name} must have the relations, noise and answers of the task ({_sizes(task)}), "
                f"got {_sizes(self.task)}: with subjects='new' only the subjects may differ"
            )
        whole, before = torch.zeros(task.d_vocab, task.d_vocab, dtype=torch.float64), self.task.n_subjects
        whole[task.n_subjects :, task.n_subjects :] = self._whole(self.task)[before:, before:]
        return whole


def _sizes(task: FactRecallTask) -> str:
    return (
        f"{task.n_subjects} subjects, {task.n_noise} noise tokens, {task.n_facts} facts, "
        f"{task.n_implications} implications"
    )


def _first_other(found: FactRecallTask, wanted: FactRecallTask) -> str:
    """The first label that differs, where numbers alone tell nothing."""
    pairs = zip(found.labels, wanted.labels, strict=False)
    return next((f" (its {was!r} is {now!r} in the task)" for was, now in pairs if was != now), "")


def _read_base(base: str) -> _Base:
    """The circuit that a path names.

    Raises:
        ConfigError: nothing there, or neither a run nor a matrix.
        RunError: damaged files.
    """
    path = Path(base)
    if path.is_dir():
        return _of_run(path)
    if not path.exists():
        raise ConfigError(
            f"base {base} is not there: give the folder of a finished run, or a safetensors file"
        )
    tensors, _ = read_any_tensors(path, _RESTORE)
    if set(tensors) != {"W_OV"} or tensors["W_OV"].ndim != 2 or not tensors["W_OV"].is_floating_point():
        raise ConfigError(
            f"base {base} must hold one matrix of numbers, W_OV, got "
            f"{', '.join(sorted(tensors)) or 'nothing'}: for the weights of a run give its folder"
        )
    return _Base(base, _finite(base, tensors["W_OV"]), None, digest_of_tensors(tensors, 16))


def _of_run(folder: Path) -> _Base:
    """diag(a) W_OV of a run that has ended."""
    settings, weights = folder / "config.json", folder / "weights.safetensors"
    if not settings.exists() or not weights.exists():
        raise ConfigError(
            f"base {folder} must be the folder of a run that has ended, with config.json and "
            "weights.safetensors: train it to its end, or give a safetensors file with its W_OV"
        )
    tensors, _ = read_any_tensors(weights, _RESTORE)
    with sealed_fields(settings, _RESTORE):
        values = parse_json(read_bytes(settings))
        model, task = dict(values["model"]), FactRecallTask.from_dict(values["task"])
        options = dict(tuple(pair) for pair in model.get("ov_options", ()))
        linear_map = maps[model["ov"]].of(model.get("d_head"), options, model.get("init", "product"))
        placed = linear_map.placed(TokenAxes.of_vocabulary(task))
    if placed.n_routes is not None:
        raise ConfigError(
            f"base {folder} routes its prompts to {placed.n_routes} experts, so no single W_0 gives its "
            "logits: take a run with one W_OV, or a file with the W_OV of the expert that you mean"
        )
    is_softmax = model.get("attention", "linear") == "softmax"
    if is_softmax and model.get("train_attention", True):
        raise ConfigError(
            f"base {folder} has trained softmax attention, so no single W_0 gives its logits: take a run "
            "with linear or with frozen attention, or a file with the W_OV that you mean"
        )
    about = json.dumps([model, values["task"]], sort_keys=True)
    digest = digest_of_tensors(tensors, 16, before=about)
    d, n = task.d_vocab, task.n_inputs
    shapes = {**placed.shapes(d, d), "W_QK": (d, d)}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise RunError(f"{weights} does not hold the weights that {settings} describes: {_RESTORE}")
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    scores = exact.pop("W_QK")[task.eos_token, :n]
    a = torch.ones_like(scores) if is_softmax else scores
    W = placed.product(exact)[:n]
    whole = torch.zeros(d, d, dtype=torch.float64)
    whole[:n] = a.unsqueeze(1) * W
    return _Base(str(folder), _finite(str(folder), whole), task, digest)


def _finite(base: str, W: Tensor) -> Tensor:
    if not bool(W.isfinite().all()):
        raise ConfigError(f"the W_OV of base {base} must be finite, got NaN or inf: choose another base")
    return W.double()


MAP = LowRank

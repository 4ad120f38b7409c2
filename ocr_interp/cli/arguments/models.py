"""Models of any kind that a command is given: folders, saved HookedTransformers, runs, adapters, names."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_interp.cli.arguments.files import read_object, read_snapshot
from ocr_interp.errors import ConfigError, ModelError, RunError

if TYPE_CHECKING:
    from ocr_interp.training.run import Snapshot

KINDS = (
    "a folder of a transformers model or of an adapter of peft, a run of `train` or of `llm finetune`, a "
    ".safetensors of `export` or `save_model`, or a name on the hub that is on this machine"
)


@dataclass(frozen=True)
class GivenModel:
    """A model, ready for every circuit tool.

    Attributes:
        name: as it was given.
        model: a HookedTransformer, a TransformerBridge or a PeftModel.
        run: the fact-recall run or snapshot that it is of, if it is one.
        has_tokenizer: whether prompts are texts; else they are labels or ids, one a word.
    """

    name: str
    model: Any
    run: Snapshot | None = None
    has_tokenizer: bool = False

    @property
    def short(self) -> str:
        """Its last part, for titles."""
        return Path(self.name).expanduser().resolve().name if Path(self.name).exists() else self.name


def read_any_model(name: str, step: int | None = None) -> GivenModel:
    """The model of a path or a name.

    Args:
        name: see KINDS.
        step: of a fact-recall run, the snapshot.

    Raises:
        RunError, ModelError: none there, or a damaged one.
        ConfigError: a step of something that is no fact-recall run.
    """
    path = Path(name).expanduser()
    settings = read_object(path / "config.json") if path.is_dir() else {}
    if path.is_dir() and ((path / "history.csv").is_file() or "task" in settings) and "facts" not in settings:
        run = read_snapshot(path, step)
        return GivenModel(name, run.model, run)
    if step is not None:
        raise ConfigError(f"a step belongs to a run of `train`, got {name}: leave it out")
    if path.suffix == ".safetensors":
        from ocr_interp.models.saved import load_model

        return _named(GivenModel(name, load_model(path)))
    if {"facts", "train"} <= settings.keys():
        if not (path / "model").is_dir():
            raise RunError(_why_no_model(name, path))
        path = path / "model"
    elif (path / "adapter_config.json").is_file():
        _refuse_own_update(name, path)
        return _adapter(name, path)
    elif path.is_file() or (path.is_dir() and not settings):
        advice = (
            "; of a HookedTransformer of your own load it in Python and write it with "
            "ocr_interp.models.save_model(model, file)"
            if path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl")
            else ""
        )
        raise RunError(f"{name} is no model that this command reads: pass {KINDS}{advice}")
    bridge = _bridge(str(path) if path.is_dir() else name)
    return _named(GivenModel(name, bridge, has_tokenizer=True))


def base_of(given: GivenModel, step: int | None = None) -> GivenModel:
    """The model that a peft adapter is on, by itself.

    Raises:
        ConfigError: a model without an adapter.
    """
    name = read_object(Path(given.name).expanduser() / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"compare takes two models, or one peft adapter, got {given.name} alone, which is no adapter: "
            "name the model after it too"
        )
    return read_any_model(name, step)


def _why_no_model(name: str, path: Path) -> str:
    """Why a run of `llm finetune` has no folder `model`, and what to do."""
    from ocr_interp.llm.training.files.store import RunFolder

    folder = RunFolder(path)
    if folder.adapter_file.is_file():
        _refuse_own_update(name, folder.adapter_file.parent)
    if not folder.is_complete():
        return f"{name} has kept no model yet: start `llm finetune` again with the same run_dir"
    return f"{name} kept no merged model: fine-tune with --save-model into a new run_dir"


def _refuse_own_update(name: str, folder: Path) -> None:
    """Refuses an update of this library's own kind, which is no adapter of peft.

    Raises:
        ModelError: it is one; the message says what can be done with it.
    """
    values = read_object(folder / "adapter_config.json")
    if "peft_type" in values or not {"format_version", "method"} <= values.keys():
        return
    from ocr_interp.llm.adapters import methods

    method = str(values["method"])
    loaded = f"ocr_interp.llm.load_update(model, {str(folder)!r})"
    kind = f"an update of this library's own kind ({method!r})"
    what = f"{name} holds {kind}, no whole model and no adapter of peft"
    if method in methods and methods[method].why_not_merged is None:
        raise ModelError(
            f"{what}: in Python llm.merge_update({loaded}) gives the whole model; write it with "
            "save_pretrained, with its tokenizer, and name that folder"
        )
    why = f" ({methods[method].why_not_merged})" if method in methods else ""
    measured = f"; `ocr-interp llm evaluate {folder.parent}` measures it" if folder.name == "adapter" else ""
    raise ModelError(
        f"{what}. It cannot be merged into a model's weights{why}: {loaded} in Python puts it on the "
        f"model before fine-tuning, to run and inspect it there{measured}"
    )


def _named(given: GivenModel) -> GivenModel:
    """The model with the name that it was given by: provenance and titles show that one, and no path."""
    config: Any = getattr(given.model, "cfg", None)
    if config is not None:
        config.model_name = given.short
    return given


def _bridge(name: str) -> Any:
    """A bridge of a transformers model, on the CPU."""
    import torch

    from ocr_interp.llm.models.bridge import as_bridge, viewed
    from ocr_interp.llm.models.loading import load_model

    cpu = torch.device("cpu")
    return as_bridge(viewed(load_model(name), cpu), cpu)


def _adapter(name: str, path: Path) -> GivenModel:
    """A PeftModel: the adapter of a folder on the model that it names, nothing merged."""
    from ocr_interp.hooked.tokens.labels import name_tokens
    from ocr_interp.llm.models.loading import load_model, loading_failures, quiet
    from ocr_interp.llm.packages import require_packages

    base = read_object(path / "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise RunError(f"{path / 'adapter_config.json'} names no base model: add base_model_name_or_path")
    require_packages("peft")
    from peft import PeftModel

    lm = load_model(base)
    with loading_failures(name), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between versions of peft and transformers
        model = PeftModel.from_pretrained(lm.model, str(path), local_files_only=True).eval()
    name_tokens(model, tokenizer=lm.tokenizer)
    given = GivenModel(name, model, has_tokenizer=True)
    config: Any = model.get_base_model().config
    config._name_or_path = given.short  # the name of the copies that are read
    return given

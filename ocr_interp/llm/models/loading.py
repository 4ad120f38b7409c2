"""Loads language models by name or folder."""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ocr_interp.errors import ConfigError, ModelError, OcrInterpError
from ocr_interp.llm.adapters.base import Attached
from ocr_interp.llm.models.folders import refuse_hostile_folder, weights_bytes
from ocr_interp.llm.packages import require_packages
from ocr_interp.storage.seals import SEAL_FILE, require_sealed_folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

PREPARED_FOLDERS = {
    Path("runs/models/smollm2-135m"): "make llm-model",
    Path("runs/models/gemma-3-270m"): "make llm-model-gemma",
}
"""Folders that the project makes from packages -> the command that makes each."""

_CONNECT_SECONDS = 5.0
_MOST_PER_BYTE = 8
"""Most weights per byte of a file: one bit each, beyond all quantizations."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        name: the name or folder it came from.
        model: a transformers model.
        tokenizer: its tokenizer.
        attached: the update that is not merged into the model's weights, since it cannot be; None for a
            plain model.
    """

    name: str
    model: Any
    tokenizer: Any
    attached: Attached | None = None

    @property
    def pad(self) -> int:
        """A token to pad with; any token will do, since padding is never read."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


def load_model(name: str, *, dtype: str = "float32", download: bool = False) -> LanguageModel:
    """Loads a causal language model from a folder, from the hub's cache, or with `download` from the hub.

    Args:
        name: a folder with config.json, weights and tokenizer, or a name on the hub.
        dtype: "float32" or "bfloat16".
        download: whether to download a model that is not on this machine.

    Raises:
        ModelError: no model there, a damaged one, one that is not causal, or no network (without waiting).
        RunError: files of a folder that were changed after they were sealed, as a kept model's are.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, got {dtype!r}")
    source = model_source(name, download)
    if Path(source).is_dir():
        require_sealed_folder(
            Path(source),
            f"put the right files back; if you changed the model yourself, delete its {SEAL_FILE}",
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"local_files_only": not download, "trust_remote_code": False}
    if (folder := local_folder(source)) is not None:
        _refuse_unkept_weights(name, source, folder)
    with loading_failures(name), quiet():
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=DTYPES[dtype], output_loading_info=True, **options
        )
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would use random weights for them
        raise ModelError(
            f"{name} lacks {len(missing)} of the weights of its config.json, such as {missing[0]}: "
            "they would be random; take the whole model, or one with a language-modelling head"
        )
    _require_vocabulary(name, model, tokenizer)
    _refuse_two_way(name, model.eval())
    return LanguageModel(name, model, tokenizer)


def require_language_model(name: str, given: Any) -> None:
    """Requires a `LanguageModel` whose tokens all have an embedding.

    Args:
        name: what the argument is called.
        given: the value.

    Raises:
        ModelError: something else, such as a model of transformers without its tokenizer; or a vocabulary
            smaller than the tokenizer's.
    """
    if not isinstance(given, LanguageModel):
        raise ModelError(
            f"{name} must be an llm.LanguageModel, got a {type(given).__name__}: pass "
            f"llm.LanguageModel(name, model, tokenizer) of a model of transformers with its tokenizer"
        )
    _require_vocabulary(f"{name} ({given.name})", given.model, given.tokenizer)


def _require_vocabulary(name: str, model: Any, tokenizer: Any) -> None:
    embedded = len(model.get_input_embeddings().weight)
    if len(tokenizer) > embedded:
        raise ModelError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens, the model embeds only {embedded}: they do "
            "not belong together"
        )


def _refuse_two_way(name: str, model: Any) -> None:
    """Requires that the first token's logits do not depend on the second token, as they do in BERT."""
    with torch.no_grad():
        first = model(input_ids=torch.tensor([[0, 1], [0, 2]]), use_cache=False).logits[:, 0].float()
    size = float(first.abs().max())
    if not torch.allclose(first[0], first[1], rtol=0, atol=1e-3 * size, equal_nan=True):
        raise ModelError(
            f"{name} ({type(model).__name__}) reads what comes after a token, not only what comes before it, "
            "and so the answer itself: a causal language model is required"
        )


def load_config(name: str, *, download: bool = False) -> Any:
    """The configuration of a model, without its weights; errors as in `load_model`."""
    source = model_source(name, download)
    from transformers import AutoConfig

    with loading_failures(name):
        return AutoConfig.from_pretrained(source, local_files_only=not download, trust_remote_code=False)


def model_source(name: str, download: bool) -> str:
    """The source for transformers: a folder with a model, or a hub name that is cached or can be downloaded.

    Raises:
        ModelError: the name is neither.
    """
    require_packages("transformers", "huggingface_hub")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{name} is no model folder: it has no config.json; name a folder with config.json, weights "
                "and tokenizer"
            )
        refuse_hostile_folder(name, folder)
        return str(folder)
    if folder.exists():
        raise ModelError(f"{name} is a file: a model is a folder with config.json, weights and tokenizer")
    packaged = PREPARED_FOLDERS.get(folder)
    if name.startswith(("/", ".", "~")) or name.count("/") != 1 or packaged is not None:
        hint = (
            f"`{packaged}` makes it"
            if packaged is not None
            else "name a folder with config.json, weights and tokenizer, or a name on the hub as owner/name"
        )
        raise ModelError(f"there is no folder {name}: {hint}")
    cached = local_folder(name)
    if cached is not None:
        refuse_hostile_folder(name, cached)
    if download:
        _require_network(name)
    elif cached is None:
        raise ModelError(
            f"{name} is neither a folder nor in the hub's cache on this machine: pass download=True "
            "(--download) to fetch it, or name a folder"
        )
    return name


_LOADED_SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".tiktoken")
_LOADED_TEXTS = ("merges.txt", "vocab.txt")
_NOT_LOADED = (SEAL_FILE, "origin.json", "generation_config.json", "README.json")


def local_files(name: str) -> list[Path]:
    """The files that a model and its tokenizer are loaded from, sorted; none if it is not on this machine.

    Args:
        name: a folder, or a name in the hub's cache.
    """
    folder: Path | None = Path(name).expanduser()
    if not folder.is_dir():
        folder = None if name.startswith(("/", ".", "~")) or name.count("/") != 1 else local_folder(name)
        if folder is None:
            return []
    return sorted(
        file
        for file in folder.iterdir()
        if (file.suffix in _LOADED_SUFFIXES or file.name in _LOADED_TEXTS)
        and file.name not in _NOT_LOADED
        and file.is_file()
    )


def local_folder(source: str) -> Path | None:
    """The folder of a source on this machine: itself, or its snapshot in the hub's cache; or None."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        return Path(source)
    found = try_to_load_from_cache(source, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _refuse_unkept_weights(name: str, source: str, folder: Path) -> None:
    """Requires that the files hold about as many numbers as the configuration has weights.

    transformers would make the weights that are missing, whatever their size.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    kept = weights_bytes(folder)
    if not kept:
        return  # transformers says which files it looked for
    with loading_failures(name), torch.device("meta"):
        config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > _MOST_PER_BYTE * kept:
        raise ModelError(
            f"{name}: its config.json is of a model with {wanted:,} weights, its files hold {kept:,} bytes: "
            "they do not belong together"
        )


def _require_network(name: str) -> None:
    """Tries once to reach the hub; the hub's own client would retry many times."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{name} cannot be fetched: HF_HUB_OFFLINE is set; unset it or name a folder")
    endpoint = urllib.parse.urlsplit(constants.ENDPOINT)
    proxy = urllib.request.getproxies().get(endpoint.scheme)
    target = urllib.parse.urlsplit(proxy if proxy and "://" in proxy else f"//{proxy}") if proxy else endpoint
    port = target.port or (80 if target.scheme == "http" else 443)
    try:
        socket.create_connection((target.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ModelError(
            f"{name} cannot be fetched: {target.hostname} does not answer ({error}): connect to the network, "
            "or name a folder with the model"
        ) from None


@contextlib.contextmanager
def loading_failures(name: str) -> Iterator[None]:
    """Turns any exception in loading into a ModelError: configurations and tokenizers fail in many ways."""
    try:
        yield
    except (OcrInterpError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{name} cannot be loaded as a causal language model: {type(error).__name__}: {reason}"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turns transformers' progress bars off while the block runs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

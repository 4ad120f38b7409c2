"""Folders that appear whole or not at all, and what is left of those whose process was killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ocr_interp.errors import OcrInterpError, RunError
from ocr_interp.storage.atomic import TEMPORARY_PREFIX


@contextlib.contextmanager
def whole_folder(path: Path, then: str) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends without an error.

    Its files are on disk before it gets its name. The caller holds a lock that keeps other processes from
    making the same folder, so that temporary folders of its name are left from processes that were killed:
    they are removed first.

    Args:
        path: the folder; the one that holds it must exist, and an earlier folder at `path` is replaced.
        then: what to do after the cause of a failure is gone.

    Raises:
        RunError: the folder cannot be written; nothing is left of it.
    """
    remove_stale(path)
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        temporary.chmod(0o777 & ~_umask())  # mkdtemp gives rights to nobody else, an ordinary folder does
        yield temporary
        _to_disk(temporary)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OcrInterpError:
        raise
    except Exception as error:
        # Writers of weights and tokenizers raise errors of their own where the disk is full.
        of_system = isinstance(error, OSError) or re.search(r"\(os error \d+\)", str(error))
        if not of_system and type(error).__name__ != "SafetensorError":
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise RunError(
            f"cannot write {path}: {reason}. What was written before is intact: free space or rights there, "
            f"then {then}"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_stale(path: Path) -> None:
    """Removes what processes that were killed left of `whole_folder(path)`; the caller holds its lock."""
    with contextlib.suppress(OSError):
        for left in path.parent.iterdir():
            if left.name.startswith(_prefix(path)) and left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f"{TEMPORARY_PREFIX}{path.name}-"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _to_disk(folder: Path) -> None:
    """Waits until the files of a folder are on disk, so that its name never stands for a part of it."""
    for file in folder.rglob("*"):
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())

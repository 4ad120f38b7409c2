"""A folder that belongs to one run or sweep and to one process at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

from ocr_interp.errors import RunBusyError, RunError
from ocr_interp.storage.tensors import TEMPORARY_PREFIX

LOCK = ".lock"


def foreign_files(path: Path, own: Collection[str]) -> list[str]:
    """Names of what is in a folder (none if it does not exist) and is not of the project's making.

    Args:
        path: the folder.
        own: names of folders that may be there as long as they are empty; the lock and temporary files
            always may.
    """
    if not path.exists():
        return []
    return sorted(
        entry.name
        for entry in path.iterdir()
        if not entry.name.startswith(TEMPORARY_PREFIX)
        and entry.name != LOCK
        and not (entry.name in own and entry.is_dir() and not any(entry.iterdir()))
    )


@contextmanager
def locked_folder(path: Path, folders: Sequence[Path], what: str, busy: str) -> Iterator[None]:
    """The folder with some folders inside, made if needed, locked against other processes.

    Args:
        path: the folder.
        folders: folders inside it.
        what: what it is called in messages, e.g. "run directory".
        busy: the message if another process holds it.

    Raises:
        RunBusyError: another process holds it.
        RunError: the file system refuses.
    """
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise RunBusyError(busy) from None
    except OSError as error:
        raise RunError(f"cannot make the {what} {path}: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()

"""A folder that belongs to one run or sweep and to one process at a time, and its settings in JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock

from ocr_interp.errors import RunBusyError, RunError
from ocr_interp.storage.atomic import GO_ON, TEMPORARY_PREFIX, write_atomic

LOCK = ".lock"


@dataclass(frozen=True)
class FolderKind:
    """What a folder is called in messages and what belongs into it.

    Attributes:
        name: e.g. "run directory".
        noun: "directory" or "folder".
        argument: what users call its path, e.g. "run_dir".
        settings: the file that every folder of this kind has.
        inside: names of folders inside it, made when it is opened.
        user: who else may hold it, e.g. "another sweep".
    """

    name: str
    noun: str
    argument: str
    settings: str
    inside: tuple[str, ...]
    user: str

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """The folder, made if needed, locked against other processes.

        Raises:
            RunBusyError: another process holds it.
            RunError: it is a file, holds files but no settings, or the file system refuses.
        """
        if path.exists() and not path.is_dir():
            raise RunError(f"{self.argument} must be a {self.noun}, got the file {path}")
        # Before anything is made beside what may be somebody else's.
        foreign = [] if (path / self.settings).exists() else foreign_files(path, self.inside)
        if foreign:
            raise RunError(
                f"{path} is no {self.name} (no {self.settings}, but {', '.join(foreign[:3])}): choose an "
                "empty or a new one"
            )
        try:
            for folder in self.inside:
                (path / folder).mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path / LOCK, timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise RunBusyError(
                f"{path} is in use by {self.user}: wait for it, or choose another {self.argument}"
            ) from None
        except OSError as error:
            raise RunError(f"cannot make the {self.name} {path}: {error.strerror or error}") from None
        try:
            yield
        finally:
            lock.release()


def foreign_files(path: Path, own: tuple[str, ...]) -> list[str]:
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


def write_settings(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole, one line per field."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode(), GO_ON)


def read_settings(
    path: Path, newest: int, missing: str, damaged: Callable[[Exception], str]
) -> dict[str, Any]:
    """The content of a JSON file that says its format version.

    Args:
        path: the file.
        newest: the newest version that can be read; the oldest is 1.
        missing: the message if there is no such file.
        damaged: the message if it is damaged, after the path.

    Raises:
        RunError: no such file, a damaged one, or one of another version.
    """
    try:
        values = dict(json.loads(path.read_text(encoding="utf-8")))
        found = values["format_version"]
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(missing) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} {damaged(error)}") from None
    if type(found) is not int or not 1 <= found <= newest:
        raise RunError(
            f"{path} has format version {found!r}, this version reads up to {newest}: update ocr-interp"
        )
    return values


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of this package and of some others."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("ocr-interp", *packages)},
    }

"""A folder that belongs to one run or sweep and to one process at a time, and its settings in JSON."""

from __future__ import annotations

import errno
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
from ocr_interp.storage.atomic import GO_ON, TEMPORARY_PREFIX, remove_left_behind, write_atomic
from ocr_interp.storage.reading import parse_json, read_bytes

LOCK = ".lock"


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder: its names in messages and the files that belong in it.

    Attributes:
        name: e.g. "run directory".
        noun: "directory" or "folder".
        argument: name of the argument that holds its path, e.g. "run_dir".
        settings: the file that every folder of this kind has.
        inside: names of its subfolders, created when it is opened.
        user: what else may hold it, for messages, e.g. "another sweep".
    """

    name: str
    noun: str
    argument: str
    settings: str
    inside: tuple[str, ...]
    user: str

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Creates the folder if needed and locks it against other processes.

        Raises:
            RunBusyError: another process holds it.
            RunError: the path is a file, the folder holds files but no settings, or it cannot be created.
        """
        try:
            if path.exists() and not path.is_dir():
                raise RunError(f"{self.argument} must be a {self.noun}, got the file {path}")
            # Checked before anything is created in a folder that may belong to something else.
            foreign = [] if (path / self.settings).exists() else foreign_files(path, self.inside)
            if foreign:
                raise RunError(
                    f"{path} is no {self.name} (no {self.settings}, but {', '.join(foreign[:3])}): choose an "
                    "empty or a new one"
                )
            for folder in self.inside:
                (path / folder).mkdir(parents=True, exist_ok=True)
            if (path / LOCK).is_symlink():  # opening the lock would empty what it points to
                raise OSError(errno.ELOOP, f"its {LOCK} is a link: delete the link")
            lock = filelock.FileLock(path / LOCK, timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise RunBusyError(
                f"{path} is in use by {self.user}: wait for it, or choose another {self.argument}"
            ) from None
        except RunError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else None
            raise RunError(f"cannot make the {self.name} {path}: {reason or error}") from None
        try:
            for folder in (path, *(path / name for name in self.inside)):
                remove_left_behind(folder)
            yield
        finally:
            lock.release()


def foreign_files(path: Path, own: tuple[str, ...]) -> list[str]:
    """Names of a folder's entries that this package did not create; none if the folder does not exist.

    Args:
        path: the folder.
        own: names of subfolders that are allowed while empty; the lock and temporary files are always
            allowed.
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
    """Writes a JSON file atomically, one line per field."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode(), GO_ON)


def read_settings(
    path: Path, newest: int, missing: str, damaged: Callable[[Exception], str]
) -> dict[str, Any]:
    """The content of a JSON file that states its format version.

    Args:
        path: the file.
        newest: the newest version that can be read; the oldest is 1.
        missing: the message if there is no such file.
        damaged: the message if it is damaged, after the path.

    Raises:
        RunError: no such file, a damaged one, or one of another version.
    """
    try:
        values = dict(parse_json(read_bytes(path)))
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

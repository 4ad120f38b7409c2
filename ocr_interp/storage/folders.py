"""A folder that belongs to one run or sweep and to one process at a time, and its settings in JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import filelock

from ocr_interp.errors import RunBusyError, RunError, RunReadOnlyError
from ocr_interp.storage.atomic import GO_ON, TEMPORARY_PREFIX, write_atomic
from ocr_interp.storage.seals import sealed

LOCK = ".lock"

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


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
            RunReadOnlyError: nothing can be written there.
            RunError: the path is a file or no UTF-8, the folder holds files but no settings, or it cannot be
                created or locked.
        """
        require_utf8(path)
        if path.exists() and not path.is_dir():
            raise RunError(f"{self.argument} must be a {self.noun}, got the file {path}")
        # Checked before anything is created in a folder that may belong to something else.
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
            self._refuse_unlocked(path)
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            read_only = getattr(error, "errno", None) in _READ_ONLY
            raise (RunReadOnlyError if read_only else RunError)(
                f"cannot make the {self.name} {path}: {reason}"
            ) from None
        try:
            remove_left_behind(path, *(path / folder for folder in self.inside))
            yield
        finally:
            lock.release()

    def _refuse_unlocked(self, path: Path) -> NoReturn:
        """Says why a folder could not be locked: another process, or a file system without locks."""
        refused = _lock_refusal(path / LOCK)
        if refused is not None:
            raise RunError(
                f"the file system of {path} refuses to lock it ({refused}): choose a {self.argument} on "
                "another one, such as a local disk"
            ) from None
        raise RunBusyError(
            f"{path} is in use by {self.user}: wait for it, or choose another {self.argument}"
        ) from None


def _lock_refusal(path: Path) -> str | None:
    """The reason of a file system that refuses a lock; None if another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        with open(path, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None  # it was released in the meantime


def remove_left_behind(*folders: Path) -> None:
    """Removes temporary files that killed processes left in folders of which the caller holds the lock."""
    for folder in folders:
        with contextlib.suppress(OSError):  # a leftover that cannot be removed does no harm
            for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
                if file.is_symlink() or file.is_file():
                    file.unlink()


def require_utf8(path: Path) -> None:
    """Requires that a path can be written as UTF-8, which the files of weights must be opened by.

    Raises:
        RunError: it cannot.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path)
        raise RunError(
            f"{shown!r} is no UTF-8, so that no weights can be written there: choose a path of other letters"
        ) from None


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
    """Writes a JSON file with its seal atomically, one line per field."""
    write_atomic(path, (json.dumps(sealed(content), indent=2) + "\n").encode(), GO_ON)


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
        values = dict(json.loads(path.read_text(encoding="utf-8")))
        found = values["format_version"]
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(missing) from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
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

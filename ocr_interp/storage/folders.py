"""A folder that belongs to one run or sweep and to one process at a time, and its settings in JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock

from ocr_interp.errors import OcrInterpError, RunBusyError, RunError, RunReadOnlyError
from ocr_interp.storage.atomic import GO_ON, TEMPORARY_PREFIX, remove_left_behind, write_atomic
from ocr_interp.storage.reading import parse_json, read_bytes
from ocr_interp.storage.seals import sealed

LOCK = ".lock"

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems without locks answer; flock says EWOULDBLOCK where another process holds the lock."""


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

    @contextlib.contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Creates the folder if needed and locks it against other processes.

        Raises:
            RunBusyError: another process holds it.
            RunReadOnlyError: nothing can be written there.
            RunError: the path is a file or no UTF-8, the folder holds files but no settings, or it cannot be
                created or locked.
        """
        require_utf8(path)
        with making(f"the {self.name} {path}"):
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
            lock = _acquired(path, path / LOCK, self.user, self.argument)
        try:
            remove_left_behind(path, *(path / folder for folder in self.inside))
            yield
        finally:
            lock.release()


@contextlib.contextmanager
def locked_beside(path: Path) -> Iterator[None]:
    """Locks the name of a folder that is about to be made, by a file beside it; makes the folders above it.

    Raises:
        RunBusyError: another process is making it.
        RunError: the file cannot be written or locked.
    """
    with making(f"the folder {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(
            path, path.with_name(f".{path.name}{LOCK}"), "another process that makes it", "folder"
        )
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def making(what: str) -> Iterator[None]:
    """Turns errors of the file system, while a folder is made and locked, into those of the package."""
    try:
        yield
    except OcrInterpError:
        raise
    except (OSError, NotImplementedError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        read_only = getattr(error, "errno", None) in _READ_ONLY
        raise (RunReadOnlyError if read_only else RunError)(f"cannot make {what}: {reason}") from None


def _acquired(path: Path, file: Path, user: str, argument: str) -> filelock.BaseFileLock:
    """The lock of a folder, which is held in a file.

    Raises:
        RunBusyError: another process holds it.
        RunError: the file system has no locks.
        OSError: the file is a link, or cannot be opened.
    """
    if file.is_symlink():  # opening the lock would empty what it points to
        raise OSError(errno.ELOOP, f"its {file.name} is a link: delete the link")
    lock = filelock.FileLock(file, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        refused = _lock_refusal(file)
        if refused is None:
            raise RunBusyError(
                f"{path} is in use by {user}: wait for it, or choose another {argument}"
            ) from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", None) not in _NO_LOCKS and not isinstance(error, NotImplementedError):
            raise
        refused = getattr(error, "strerror", None) or str(error)
    else:
        return lock
    raise RunError(
        f"the file system of {path} refuses to lock it ({refused}): choose a {argument} on another one, "
        "such as a local disk"
    )


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

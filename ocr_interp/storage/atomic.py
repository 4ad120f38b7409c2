"""Atomic file writes: the old content stays until the new content is complete."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocr_interp.errors import RunError

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of the names of files that are being written; a process that was killed may leave one behind."""

_TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + r"([0-9a-f]{32}|.+\.(safetensors|json|csv))")
"""Temporary files of this version, and of earlier ones, which put the prefix before the file's own name."""

GO_ON = "start again with the same run_dir to go on from the last checkpoint"
"""Advice for a run that could not be written."""


@contextmanager
def replacing(path: Path, then: str = "try again") -> Iterator[Path]:
    """A temporary file that replaces `path` when the block ends without an error.

    The temporary file is made here, empty, under a name that nobody can foresee: in a folder that others
    write to, too, a link under a known name would have its target overwritten. A `path` that is itself a link
    is replaced; what it points to stays as it is.

    Args:
        path: the file; its folder must exist.
        then: what to do after the cause of a failure is gone.

    Raises:
        RunError: the file cannot be written (full disk, no permission); the old file is unchanged.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(16)}")
    made = False
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(temporary, flags, 0o666))
        made = True
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        if made:
            with contextlib.suppress(OSError):  # the cause of the failure is what counts
                temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. What was written before is intact: free space "
            f"or rights there, then {then}"
        ) from error


def write_atomic(path: Path, content: bytes, then: str = "try again") -> None:
    """Writes a file so that its old content stays until the new one is complete on disk.

    Args:
        path: the file; its folder must exist.
        content: all of its bytes.
        then: what to do after the cause of a failure is gone.

    Raises:
        RunError: the file cannot be written; the old file is unchanged.
    """
    with replacing(path, then) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove_left_behind(*folders: Path) -> None:
    """Removes temporary files that killed processes left in folders of which the caller holds the lock."""
    for folder in folders:
        with contextlib.suppress(OSError):  # a leftover that cannot be removed does no harm
            for entry in folder.iterdir():
                if _TEMPORARY.fullmatch(entry.name) and (entry.is_symlink() or entry.is_file()):
                    entry.unlink()

"""Atomic file writes: the old content stays until the new content is complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocr_interp.errors import RunError

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of the names of files that are being written; a process that was killed may leave one behind."""

GO_ON = "start again with the same run_dir to go on from the last checkpoint"
"""Advice for a run that could not be written."""


@contextmanager
def replacing(path: Path, then: str = "try again") -> Iterator[Path]:
    """A temporary file that replaces `path` when the block ends without an error.

    Args:
        path: the file; its folder must exist.
        then: what to do after the cause of a failure is gone.

    Raises:
        RunError: the file cannot be written (full disk, no permission); the old file is unchanged.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # where nothing can be deleted, the cause is still what counts
            temporary.unlink(missing_ok=True)
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

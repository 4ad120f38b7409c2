"""The folder of one run: its configuration, and the fingerprint that all its files carry."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from ocr_interp.errors import OcrInterpError, RunError, RunReadOnlyError, UnknownVariantError
from ocr_interp.storage.folders import FolderKind, read_settings, require_utf8, write_settings
from ocr_interp.storage.known_folders import KNOWN_FOLDERS, KnownFolder
from ocr_interp.storage.reading import parse_json, read_bytes, sealed_fields
from ocr_interp.storage.seals import require_seal


@runtime_checkable
class Configuration(Protocol):
    """What a run folder needs of a configuration."""

    fingerprint: Any
    """Short hash, a string, of everything that determines the result, in the newest format."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        ...

    def differences(self, other: Any) -> list[str]:
        """The differing fields that determine the result, in words."""
        ...


AnyConfiguration = TypeVar("AnyConfiguration", bound=Configuration)


class ConfiguredFolder(ABC, Generic[AnyConfiguration]):
    """The folder of one run; subclasses add the files of a kind of run.

    A folder keeps the format version that it was created with. All its files carry the fingerprint of its
    configuration in that version, including files written when the run is resumed.

    Args:
        path: the folder.

    Attributes:
        kind: the kind of folder.
        newest: the newest format version, used for new folders.
    """

    kind: ClassVar[FolderKind]
    newest: ClassVar[int]
    _known: ClassVar[KnownFolder]
    _unsealed: ClassVar[tuple[str, ...]]  # names in a config.json from before it had a seal

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / self.kind.settings
        self._stamp: tuple[int, str] | None = None

    @property
    def version(self) -> int:
        """Format version that the folder was created with."""
        return self._stamped()[0]

    @property
    def fingerprint(self) -> str:
        """The fingerprint that every file in the folder carries."""
        return self._stamped()[1]

    def _stamped(self) -> tuple[int, str]:
        if self._stamp is None:
            self.read_config()
        assert self._stamp is not None
        return self._stamp

    @contextmanager
    def opened(self, config: AnyConfiguration) -> Iterator[None]:
        """Creates the folder of this configuration if needed and locks it against other processes.

        A run that has ended for good is only read: it needs no lock where nothing can be written.

        Raises:
            RunBusyError: another process is training in it.
            RunError: it holds another run, or files that are not a run.
        """
        if os.path.exists(self.config_file):  # False where the name itself is not allowed
            self.read_config()  # before anything is written into a folder of another run
        with ExitStack() as held:
            try:
                held.enter_context(self.kind.locked(self.path))
            except RunReadOnlyError:
                if not (self.config_file.exists() and self.is_complete()):
                    raise
            self._adopt(config)
            yield

    def _adopt(self, config: AnyConfiguration) -> None:
        """Writes config.json into a new folder, or checks that it is the same run."""
        if self.config_file.exists():
            differences = self._differences(config, self.read_config())
            if not differences:
                return
            if self._extend(config):
                return
            if not self._holds_nothing():
                raise RunError(
                    f"{self.path} holds a run with another configuration ({'; '.join(differences)}): pass "
                    f"that configuration to go on with it, or choose another {self.kind.argument}"
                )
        stamp = {"format_version": self.newest, "fingerprint": config.fingerprint}
        write_settings(self.config_file, {**stamp, **self._beside(), **config.to_dict()})
        self._stamp = self.newest, config.fingerprint

    def read_config(self) -> AnyConfiguration:
        """The configuration of the run in the folder.

        Raises:
            RunError: no run, or a config.json that is damaged, edited or too new.
        """
        require_utf8(self.path)
        self._require_kind()
        missing = f"{self.path} is no {self.kind.name}: it has no {self.kind.settings}"
        values = read_settings(self.config_file, self.newest, missing, self._damaged)
        version = values["format_version"]
        try:
            config = self._configuration(values)
            expected = config.fingerprint if version > 1 else self._fingerprint_of_version_1(values)
        except UnknownVariantError as error:
            raise RunError(
                f"{self.config_file} cannot be read in this process: {error}; if nothing of that name was "
                f"registered when it was written, it is damaged: {self._way_out()}"
            ) from None
        except (OcrInterpError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise RunError(f"{self.config_file} {self._damaged(error)}") from None
        if values.get("fingerprint") != expected:
            raise RunError(
                f"{self.config_file} was changed after it was written (fingerprint "
                f"{values.get('fingerprint')}, its content has {expected}): put the original back, or train "
                f"into a new {self.kind.argument}"
            )
        require_seal(self.config_file, values, self._unsealed, self._way_out())
        with sealed_fields(self.config_file, self._way_out()):
            self._stamp = version, self._stamp_of(values, expected)
        return config

    def _require_kind(self) -> None:
        """Requires that a config.json that can be read is not that of another kind of folder.

        Raises:
            RunError: names the kind and the commands that read it.
        """
        try:
            found = dict(parse_json(read_bytes(self.config_file)))
        except (OSError, ValueError, TypeError):
            return  # missing or damaged, which is told elsewhere
        for known in KNOWN_FOLDERS:
            if known.holds(found) and not self._known.holds(found):
                raise RunError(
                    f"{self.path} must be {self._known.name} here, got {known}; or choose another "
                    f"{self.kind.argument}"
                )

    def _differences(self, config: AnyConfiguration, stored: AnyConfiguration) -> list[str]:
        """In what a configuration differs from that of the run, in words."""
        return config.differences(stored)

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether the run has ended for good, so that it is only read.

        Raises:
            RunError: a damaged file.
        """

    def _damaged(self, error: Exception) -> str:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        return f"is damaged or no configuration of a run: {what}; {self._way_out()}"

    def _way_out(self) -> str:
        return f"put the original back, or choose another {self.kind.argument}"

    @abstractmethod
    def _configuration(self, values: dict[str, Any]) -> AnyConfiguration:
        """The configuration of the content of config.json."""

    @abstractmethod
    def _fingerprint_of_version_1(self, values: Mapping[str, Any]) -> str:
        """The fingerprint that version 1 gave this content."""

    def _beside(self) -> dict[str, Any]:
        """Content of config.json besides the configuration."""
        return {}

    def _extend(self, config: AnyConfiguration) -> bool:
        """Makes the run in the folder a longer one, if it differs in its length alone.

        Returns: whether it did.

        Raises:
            RunError: it differs in its length alone and cannot go on; says why.
        """
        return False

    def _stamp_of(self, values: Mapping[str, Any], fingerprint: str) -> str:
        """The fingerprint that the files carry, from the content of config.json and its fingerprint."""
        return fingerprint

    def _holds_nothing(self) -> bool:
        """Whether the run in the folder ended before it stored any results."""
        return False

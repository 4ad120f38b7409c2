"""The exceptions of the package: one base class and its subclasses. Messages say what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OcrInterpError(ValueError):
    """Base class of every error that the package raises on purpose."""


class ConfigError(OcrInterpError):
    """A field of a task or configuration is not allowed."""


class UnknownNameError(OcrInterpError):
    """A label, column, split, hook or run that does not exist."""


class UnknownVariantError(ConfigError, UnknownNameError):
    """A parameterisation, norm, optimiser or other variant that no file and no registration brings."""


class RunError(OcrInterpError):
    """A run directory that cannot be read, written or trusted."""


class RunBusyError(RunError):
    """A run directory that another process is writing."""


class RunReadOnlyError(RunError):
    """A run directory that nothing can be written into."""


class TrainingDivergedError(OcrInterpError):
    """A loss that turned NaN or infinite; the last good checkpoint is kept."""


class SolverError(OcrInterpError):
    """A max-margin problem that was infeasible or not solved to the tolerance."""


class ModelError(OcrInterpError):
    """A model, layer, head or architecture that a circuit cannot be read from."""


class StaleCircuitError(OcrInterpError):
    """A circuit whose model has changed since the circuit was read."""


class AttributionError(OcrInterpError):
    """Contributions that do not sum to what they decompose."""


class InterventionNeverFiredError(OcrInterpError):
    """An intervention that changed nothing, since its hook or its tokens never occurred."""


class WeightsError(OcrInterpError):
    """A weight matrix, or dual weights, of a wrong shape, not finite, or zero throughout."""


def shown(value: object, most: int = 200) -> str:
    """A value as text for a message: never longer than `most` letters, whatever was given."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**most:
        return f"a number of about {int(value.bit_length() * 0.30103):,} digits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a list with such a number in it, or with itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}…"


def unknown_name(kind: str, got: object, allowed: Iterable[str]) -> UnknownNameError:
    """Builds the error for a name that does not exist, with its closest matches; of names that are equally
    close, those that are allowed first."""
    names, word = list(dict.fromkeys(allowed)), shown(got).strip("'")
    found = difflib.get_close_matches(word, names, n=max(len(names), 1), cutoff=0.4)
    place = {name: k for k, name in enumerate(names)}
    match = difflib.SequenceMatcher(b=word)

    def distance(name: str) -> tuple[float, int]:
        match.set_seq1(name)
        return -match.ratio(), place[name]

    close = sorted(found, key=distance)[:3]
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else None
    listed = ", ".join(map(repr, names[:12])) + (f", ... ({len(names)} in all)" if len(names) > 12 else "")
    return UnknownNameError(
        f"unknown {kind} {shown(got)}: " + (f"{hint} " if hint else "") + f"allowed: {listed or 'none'}"
    )

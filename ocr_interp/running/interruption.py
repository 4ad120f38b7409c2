"""Ctrl-C and SIGTERM as a request to stop at a point where everything can be saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what a scheduler sends before it kills: both ask a computation to stop."""


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether a signal of SIGNALS came: the first only asks to stop, the second acts as usual."""
    asked: list[int] = []

    def ask(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)
        restore()

    with _handled(dict.fromkeys(SIGNALS, ask)) as restore:
        yield lambda: bool(asked)


@contextlib.contextmanager
def terminated_as_by_ctrl_c() -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt as Ctrl-C does, for computations that stop wherever they are."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        restore()
        raise KeyboardInterrupt

    with _handled({signal.SIGTERM: interrupt}) as restore:
        yield


@contextlib.contextmanager
def _handled(
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]],
) -> Iterator[Callable[[], None]]:
    """Sets handlers of signals in the main thread; yields the function that sets those before again."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    # None: a handler that was set in C
    before = {which: signal.getsignal(which) or signal.SIG_DFL for which in handlers}
    if before.get(signal.SIGINT) is signal.SIG_DFL:
        before[signal.SIGINT] = signal.default_int_handler

    def restore() -> None:
        for which, handler in before.items():
            signal.signal(which, handler)

    for which, handler in handlers.items():
        signal.signal(which, handler)
    try:
        yield restore
    finally:
        restore()

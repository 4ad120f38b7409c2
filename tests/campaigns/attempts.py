"""One attempt in a forked process: what became of it, how long it took, how much memory it had.

Importing torch and transformers takes seconds, so the campaign imports them once and forks. The parent never
trains: it has no threads that a fork would lose.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HANG_SECONDS = 10.0
"""Processor seconds after which an attempt hangs; waiting counts from WAIT_SECONDS on."""

WAIT_SECONDS = 60.0
MOST_BYTES = 2 * 2**30


@dataclass
class Outcome:
    """What an attempt came to.

    Attributes:
        kind: "ok", "refused" (an error of the package, or exit code 2 with one line), "traceback", "hang",
            "memory", "killed" (by the campaign) or "died".
        text: the error or what was printed.
        value: what the attempt returned, as JSON holds it.
        seconds: wall-clock time; cpu: processor time.
        peak: largest resident memory, bytes.
    """

    kind: str
    text: str = ""
    value: Any = None
    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0


def attempt(
    work: Callable[[], Any],
    *,
    kill_after: float | None = None,
    file_size: int | None = None,
    own_limit: float = HANG_SECONDS,
) -> Outcome:
    """Runs `work` in a forked process.

    Args:
        work: what to do; its return value must be JSON.
        kill_after: processor seconds until SIGKILL, which other work on the machine does not move; None
            lets it end.
        file_size: largest file in bytes that it may write (a full disk); None is no limit.
        own_limit: processor seconds that are no hang.
    """
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setpgid(0, 0)
        _in_child(work, writing, file_size)
    os.close(writing)
    os.set_blocking(reading, False)
    reply, verdict = bytearray(), ""
    while True:
        reply += _available(reading)
        pid, status, used = os.wait4(child, os.WNOHANG)
        if pid:
            break
        seconds = time.monotonic() - start
        if kill_after is not None and _cpu(child) >= kill_after:
            time.sleep(random.uniform(0.0, 0.01))  # waiting for the disk takes no processor time
            verdict = "killed"
        elif _cpu(child) > own_limit or seconds > max(WAIT_SECONDS, 3 * own_limit):
            verdict = "hang"
        elif _resident(child) > MOST_BYTES * 1.5:
            verdict = "memory"
        if verdict:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            break
        time.sleep(0.02 if kill_after is None else 0.002)
    reply += _available(reading)
    os.close(reading)
    found = Outcome(
        verdict or "died",
        seconds=time.monotonic() - start,
        cpu=used.ru_utime + used.ru_stime,
        peak=used.ru_maxrss * 1024,
    )
    if reply and verdict in ("", "killed"):
        with contextlib.suppress(ValueError):
            told = json.loads(reply.decode())
            found.kind, found.text, found.value = told["kind"], told["text"], told["value"]
    elif not verdict:
        found.text = f"exit status {status}"
    if found.kind in ("ok", "refused") and found.peak > MOST_BYTES:
        found.kind = "memory"
    return found


def _in_child(work: Callable[[], Any], writing: int, file_size: int | None) -> None:
    told: dict[str, Any] = {"kind": "traceback", "text": "", "value": None}
    try:
        sys.stdin = open(os.devnull)  # noqa: SIM115  # as long as the process
        if file_size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
        told |= {"kind": "ok", "value": work()}
    except BaseException as error:
        told |= {"kind": _kind_of(error), "text": _text_of(error)}
    with contextlib.suppress(OSError):
        os.write(writing, json.dumps(told).encode()[:60_000])  # a pipe holds 64 kB
    os._exit(0)


def _kind_of(error: BaseException) -> str:
    from ocr_interp.errors import OcrInterpError

    return "refused" if isinstance(error, OcrInterpError) else "traceback"


def _text_of(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" at {frame.filename.rsplit('/', 2)[-2:]}:{frame.lineno}" for frame in last)
    return f"{type(error).__name__}: {str(error)[:300]}{where}"


def guarded(work: Callable[[], Any], seconds: float = HANG_SECONDS) -> Outcome:
    """An attempt inside of this process, for many quick ones in one fork; judged as by `attempt`."""

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        return Outcome("ok", value=work())
    except TimeoutError:
        return Outcome("hang")
    except Exception as error:
        return Outcome(_kind_of(error), _text_of(error))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def command(*words: str, encoding: str = "utf-8") -> dict[str, Any]:
    """Runs `ocr-interp` in this process, as on a terminal of this encoding; for inside of an attempt.

    Returns: exit code, stdout, stderr.

    Raises: what escapes from main, which a user would see as a traceback.
    """
    from ocr_interp import cli

    out, err = io.BytesIO(), io.BytesIO()
    sys.stdout = io.TextIOWrapper(out, encoding=encoding, errors="strict", write_through=True)
    sys.stderr = io.TextIOWrapper(err, encoding=encoding, errors="strict", write_through=True)
    sys.argv = ["ocr-interp", *words]
    code: Any = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            err.write(code.encode("utf-8", "backslashreplace"))
            code = 1
    return {
        "code": code or 0,
        "out": out.getvalue().decode(encoding, "replace")[-5_000:],
        "err": err.getvalue().decode(encoding, "replace")[:5_000],
    }


def judged(outcome: Outcome) -> Outcome:
    """The outcome of an attempt whose value is that of `command`: a refusal is exit 2 and one line."""
    if outcome.kind != "ok":
        return outcome
    told = outcome.value
    outcome.text = told["err"][:400]
    if "Traceback" in told["err"]:
        outcome.kind = "traceback"
    elif told["code"]:
        lines = [line for line in told["err"].splitlines() if line.startswith("ocr-interp: error:")]
        outcome.kind = "refused" if lines or told["code"] in (1, 130) else "died"
    return outcome


def _available(reading: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(reading, 2**16)
    return b""


def _cpu(child: int) -> float:
    """Processor seconds of all threads, to the nanosecond."""
    spent = 0
    for task in Path(f"/proc/{child}/task").glob("*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def _resident(child: int) -> int:
    try:
        with open(f"/proc/{child}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@dataclass
class Tally:
    """The counts of one kind of attempt.

    Attributes:
        name: the row of the table.
        tried: attempts; accepted, refused: how many went on or were refused.
        silent, lost, tracebacks, hangs, memory, died: failures by kind.
        failures: what failed, in words.
        seconds: time of the row.
    """

    name: str
    tried: int = 0
    accepted: int = 0
    refused: int = 0
    silent: int = 0
    lost: int = 0
    tracebacks: int = 0
    hangs: int = 0
    memory: int = 0
    died: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, outcome: Outcome, what: str) -> None:
        """Adds an attempt; a failure is described."""
        self.tried += 1
        names = {"ok": "accepted", "refused": "refused", "traceback": "tracebacks", "hang": "hangs"}
        names |= {"memory": "memory", "died": "died", "silent": "silent", "lost": "lost"}
        name = names[outcome.kind]
        setattr(self, name, getattr(self, name) + 1)
        if name not in ("accepted", "refused"):
            self.failures.append(f"{outcome.kind}: {what}: {outcome.text}"[:600])

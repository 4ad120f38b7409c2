"""ocr-interp: the command line. Subcommands import torch only when they run, so --help is instant."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import re
import sys
from typing import Annotated

import tyro

from ocr_interp.cli.ablate import Ablate
from ocr_interp.cli.analyze import Analyze
from ocr_interp.cli.arguments.files import allow_any_text, say
from ocr_interp.cli.arguments.options import READING
from ocr_interp.cli.arguments.suggestions import complaint, subcommands
from ocr_interp.cli.export import Export
from ocr_interp.cli.info import Info
from ocr_interp.cli.llm import Llm
from ocr_interp.cli.pictures.circuit import Circuit
from ocr_interp.cli.pictures.compare import Compare
from ocr_interp.cli.pictures.diagram import Diagram
from ocr_interp.cli.pictures.report import Report
from ocr_interp.cli.reproduce import Reproduce
from ocr_interp.cli.solve import Solve
from ocr_interp.cli.sweep import Sweep
from ocr_interp.cli.train import Train
from ocr_interp.errors import OcrInterpError

_Subcommand = (
    Reproduce
    | Train
    | Sweep
    | Llm
    | Info
    | Analyze
    | Ablate
    | Diagram
    | Circuit
    | Compare
    | Report
    | Solve
    | Export
)
Command = (
    Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Llm, tyro.conf.subcommand("llm")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Analyze, tyro.conf.subcommand("analyze")]
    | Annotated[Ablate, tyro.conf.subcommand("ablate")]
    | Annotated[Diagram, tyro.conf.subcommand("diagram")]
    | Annotated[Circuit, tyro.conf.subcommand("circuit")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Solve, tyro.conf.subcommand("solve")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


COMMANDS = subcommands(Command)
"""The commands by name."""


def main() -> None:
    """Entry point: errors are one line on stderr and exit code 2, never a traceback."""
    allow_any_text()
    try:
        _parse(sys.argv[1:]).run()
    except OcrInterpError as error:
        _fail(str(error))
    except MemoryError:
        _fail("not enough memory: make the task, the batch or d_head smaller")
    except RuntimeError as error:
        if "alloc" not in str(error) and "out of memory" not in str(error):
            raise  # a bug of this library: show the whole traceback
        _fail(f"not enough memory ({str(error).splitlines()[0]}): make the task, the batch or d_head smaller")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)  # the reader closed the pipe, as `| head` does
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}")


def _parse(
    arguments: list[str],
) -> _Subcommand:
    """Parses the arguments; tyro's boxed errors become one line."""
    if arguments[:1] in (["--version"], ["-V"]):
        print(f"ocr-interp {importlib.metadata.version('ocr-interp')}")
        sys.exit(0)
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(
                Command,
                prog="ocr-interp",
                description="Out-of-context reasoning in transformers: train, reproduce, interpret. "
                "ocr-interp COMMAND --help lists a command's options; ocr-interp --version, the version.",
                args=arguments or ["--help"],
                config=(tyro.conf.OmitArgPrefixes,),
                registry=READING,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _fail(complaint("ocr-interp", COMMANDS, arguments) or _unboxed(boxed.getvalue()))
        raise


def _unboxed(text: str) -> str:
    """The text of a boxed message in one line, without frame, title and hints at --help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip(" │─") for line in plain.splitlines() if not line.startswith(("╭", "╰"))]
    message = " ".join(line for line in lines if line)
    message = re.sub(r"^[^-]*-{10,} ?| ?-{10,}", "", message)  # the frame on a terminal with ASCII only
    message = re.sub(r"Error parsing (__tyro-dummy-inner__[\w.]*: )?", "", message)
    message = re.sub(
        r"Unrecognized (?:or misplaced )?options: (.*?)( \(applied to.*| Perhaps you meant.*|$)",
        r"unexpected argument \1",
        message,
    )
    message = re.split(r" ?(?:For full helptext|Argument helptext:|Got errors:)", message)[0]
    return re.sub(r"no type matching (.*) could be instantiated from", r"must be \1, got", message)


def _fail(message: str) -> None:
    say(f"ocr-interp: error: {' '.join(message.split())}", on_stderr=True)
    sys.exit(2)

"""A function in another process, to be killed, interrupted or starved.

A fresh interpreter takes seconds to load torch and transformers. A server that has loaded them forks one:
the package as users have it, without the type checker, the threads and the patches of this process.
"""

import contextlib
import os
import signal
import sys
from multiprocessing import get_context

SERVER = get_context("forkserver")
LOADED = ("training.loop", "sweeps.sweep", "cli.llm.finetune", "llm.training.finetune")
# torch's optimisers load torch._dynamo at their first step; accelerate and transformer_lens come late too.
SERVER.set_forkserver_preload(
    ["torch._dynamo", "accelerate", "transformer_lens", *(f"ocr_interp.{name}" for name in LOADED)]
)


def _called(function, arguments, out, err):
    for connection, descriptor, name in ((out, 1, "stdout"), (err, 2, "stderr")):
        os.dup2(connection.fileno(), descriptor)
        connection.close()
        setattr(sys, name, open(descriptor, "w", buffering=1, encoding="utf-8", closefd=False))  # noqa: SIM115
    import torch

    torch.set_num_threads(1)
    function(*arguments)


def say(*words):
    """One line for the process that waits for it."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def command(words, folder, environment):
    """`ocr-interp` with these words, in a folder."""
    from ocr_interp import cli

    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["ocr-interp", *words]
    cli.main()


class OtherProcess:
    """Calls a function of a module, with arguments that can be pickled; `with` kills it at the end.

    Attributes:
        stdout, stderr: what it writes, as files of text.
    """

    def __init__(self, function, *arguments):
        (out, write_out), (err, write_err) = SERVER.Pipe(duplex=False), SERVER.Pipe(duplex=False)
        self._process = SERVER.Process(target=_called, args=(function, arguments, write_out, write_err))
        self._process.start()
        self.stdout, self.stderr = (os.fdopen(os.dup(read.fileno()), encoding="utf-8") for read in (out, err))
        for connection in (out, write_out, err, write_err):
            connection.close()

    @property
    def pid(self):
        return self._process.pid

    def send_signal(self, which):
        os.kill(self._process.pid, which)

    def wait(self, timeout=None):
        """The exit code, negative for a signal."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"it goes on after {timeout} s"
        return self._process.exitcode

    def communicate(self, timeout=None):
        """All that it still writes to stdout and to stderr, which must be little, once it has ended."""
        said = self.stdout.read(), self.stderr.read()
        self.wait(timeout)
        return said

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(signal.SIGKILL)
        self._process.join()
        self.stdout.close()
        self.stderr.close()
        self._process.close()

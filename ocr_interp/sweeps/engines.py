"""Where stacks are trained: in threads of this process (`distributed` has the engine for a cluster)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import torch
from threadpoolctl import ThreadpoolController

from ocr_interp.configuration.run import RunConfig
from ocr_interp.sweeps.records import RunRecord
from ocr_interp.sweeps.stacks import SweepStopped, train_stack

Finished = Callable[[list[RunRecord]], None]
Trained = Callable[[Sequence[RunConfig], int], None]
"""Is told that runs have reached a step; may be called from any thread."""


@dataclass(frozen=True)
class StackOptions:
    """How stacks are trained; the same for every engine.

    Attributes:
        certificates, keep_weights: as in `sweeps.sweep.sweep`.
    """

    certificates: bool
    keep_weights: bool


@dataclass(frozen=True)
class LocalEngine:
    """Trains stacks in this process.

    Attributes:
        workers: stacks trained at the same time, one thread each; torch releases Python's global lock while
            it computes.
    """

    workers: int

    def run(
        self, stacks: list[list[RunConfig]], options: StackOptions, finished: Finished, trained: Trained
    ) -> None:
        """Trains all stacks; `finished` gets the records of each, in this thread.

        After an error of any type the runs of a stack are tried one by one; a run that fails even then is
        recorded as failed, with the error in its message.
        """
        stopping = threading.Event()

        def work(stack: list[RunConfig]) -> list[RunRecord]:
            torch.set_num_threads(1)  # must be set in every thread
            try:
                return train_stack(
                    stack,
                    certificates=options.certificates,
                    keep_weights=options.keep_weights,
                    stopped=stopping.is_set,
                    trained=trained,
                )
            except SweepStopped:
                raise
            except Exception as error:  # of one run, perhaps: it must not end the sweep
                if len(stack) == 1:
                    return [RunRecord.failed(stack[0], error)]
            return [work([config])[0] for config in stack]

        with one_thread(), ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(work, stack) for stack in stacks]
            try:
                for future in as_completed(futures):
                    finished(future.result())
            except BaseException:
                stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for the rest
                raise


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limits each operation to one thread: the matrices are too small to gain from more.

    Results do not depend on it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadpoolController().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)

"""The stacks of a sweep on a Ray cluster; needs the extra [sweep]."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ocr_interp.configuration.run import RunConfig
from ocr_interp.errors import OcrInterpError
from ocr_interp.sweeps.engines import Finished, StackOptions, Trained, one_thread
from ocr_interp.sweeps.records import RunRecord
from ocr_interp.sweeps.stacks import train_stack

TRIES = 4
"""How often a stack is started in all; when its worker dies, another worker starts it again."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Shared memory of a cluster that `sweep` starts itself: records are small."""

_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Turns off Ray's usage reports, and keeps its present way of hiding GPUs without the deprecation warning."""


@dataclass(frozen=True)
class RayEngine:
    """Trains stacks on a Ray cluster; the results come back to this process, which writes each once.

    Attributes:
        address: address of a cluster, whose machines must have this package; "auto" uses the cluster that
            is running; None starts one on this machine and stops it afterwards. A session that is already
            open is used.
        workers: stacks trained at the same time; None is one per CPU.
    """

    address: str | None
    workers: int | None

    def run(
        self, stacks: list[list[RunConfig]], options: StackOptions, finished: Finished, trained: Trained
    ) -> None:
        """Trains all stacks; `finished` gets the records of each, in this thread; `trained` is not told.

        A stack whose worker dies is started again in another worker. After TRIES dead workers, or an error
        of any type in a worker, the runs of the stack are tried one by one; a run that fails even then is
        recorded as failed.

        Raises:
            OcrInterpError: Ray is not installed, or there is no cluster at the address.
        """
        with environment(), session(self.address, self.workers) as ray:
            options_of_task = {"max_retries": TRIES - 1, "name": "train_stack", **_resources(ray, stacks)}
            task = ray.remote(_train).options(**options_of_task)
            waiting, going = list(stacks), {}
            limit = self.workers or int(ray.cluster_resources().get("CPU", 1))
            try:
                while waiting or going:
                    while waiting and len(going) < limit:
                        stack = waiting.pop(0)
                        going[task.remote(stack, options)] = stack
                    done, _ = ray.wait(list(going), num_returns=1)
                    stack = going.pop(done[0])
                    records, again = _records(ray, done[0], stack)
                    waiting += again
                    if records:
                        finished(records)
            finally:
                for reference in going:
                    ray.cancel(reference, force=True)


def _train(stack: list[RunConfig], options: StackOptions) -> list[RunRecord]:
    """Trains one stack in a worker process."""
    with one_thread():
        return train_stack(stack, certificates=options.certificates, keep_weights=options.keep_weights)


def _records(
    ray: Any, reference: Any, stack: list[RunConfig]
) -> tuple[list[RunRecord], list[list[RunConfig]]]:
    """Returns the records of a stack, and the stacks to try again: its runs one by one after an error."""
    try:
        return ray.get(reference), []
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        if len(stack) > 1:
            return [], [[config] for config in stack]
        message = f"{type(error).__name__} after {TRIES} tries: {str(error).strip().splitlines()[0]}"
        return [RunRecord(stack[0], "failed", message, 0.0, "unknown", [])], []
    except ray.exceptions.RayError as error:  # raised in the worker, or about it
        if len(stack) > 1:
            return [], [[config] for config in stack]
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        return [RunRecord.failed(stack[0], cause)], []


def _resources(ray: Any, stacks: list[list[RunConfig]]) -> dict[str, float]:
    """One CPU per stack, and one GPU if the cluster has GPUs and a recipe's device may be one."""
    wanted = any(config.train.device != "cpu" for stack in stacks for config in stack)
    return {"num_cpus": 1, "num_gpus": 1 if wanted and ray.cluster_resources().get("GPU", 0) else 0}


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise OcrInterpError(
            "engine='ray' needs Ray, which is not installed: pip install 'ocr-interp[sweep]', or use "
            "engine='local'"
        ) from None


@contextlib.contextmanager
def session(address: str | None, workers: int | None) -> Iterator[Any]:
    """Yields Ray with an open session, which is closed afterwards unless it was open before."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    own = {"num_cpus": workers, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        # "local" starts a new cluster even if another one runs on this machine.
        ray.init(address=address or "local", **quiet, **(own if address is None else {}))
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OcrInterpError(f"no Ray cluster at {address or 'this machine'} ({reason})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Sets environment variables for Ray; afterwards restores these and those that Ray sets itself."""

    def of_ray() -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k.startswith("RAY_") or k == "PYTHONBREAKPOINT"}

    before = of_ray()
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name in of_ray():
            del os.environ[name]
        os.environ.update(before)

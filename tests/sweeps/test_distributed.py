"""A real cluster on this machine: the same table as without, also when workers are killed."""

import functools
import importlib
import os
import signal
import sys
import threading
import time

import psutil
import pytest

from ocr_interp.configuration.training import TrainConfig
from ocr_interp.errors import OcrInterpError
from ocr_interp.sweeps import distributed
from ocr_interp.sweeps.sweep import load_sweep

AXES = {"d_head": [2, 3, 4], "seed": [0, 1]}
LONG = TrainConfig(steps=2_500, batch_size=12, log_every=1_250, device="cpu")
"""A second a stack: time to be killed in."""


@pytest.fixture
def no_ray(monkeypatch):
    original = importlib.import_module
    monkeypatch.setattr(
        importlib, "import_module", lambda name: original("no_such_ray" if name == "ray" else name)
    )


def test_without_ray_the_error_names_the_extra(tiny_sweep, tmp_path, no_ray):
    with pytest.raises(OcrInterpError, match=r"needs Ray, .* pip install 'ocr-interp\[sweep\]'"):
        tiny_sweep({"seed": [0]}, engine="ray")


class Killer(threading.Thread):
    """Kills workers that are in the middle of a stack, so many and no more."""

    def __init__(self, kills):
        super().__init__(daemon=True)
        self.kills, self.killed, self.seen = kills, [], set()

    def run(self):
        while len(self.killed) < self.kills:
            for process in psutil.Process().children(recursive=True):
                try:
                    busy = "ray::train_stack" in " ".join(process.cmdline())
                    if busy and process.pid not in self.killed and self.kill(process):
                        break
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.1)

    def kill(self, process):
        self.seen.add(process.pid)
        time.sleep(0.2)  # it is training by now
        if "ray::train_stack" not in " ".join(process.cmdline()):
            return False
        os.kill(process.pid, signal.SIGKILL)
        self.killed.append(process.pid)
        return True


@pytest.mark.slow
def test_a_cluster_with_a_killed_worker_gives_the_same_table(tiny_sweep, tmp_path, same_table):
    environment = {**os.environ}
    killer = Killer(kills=1)
    killer.start()
    result = tiny_sweep(AXES, train=LONG, engine="ray", workers=2, stack=2, keep_weights=True)
    killer.join(timeout=5)
    assert len(killer.killed) == 1
    assert result.runs["status"].tolist() == ["finished"] * 6
    assert len(list((tmp_path / "sweep" / "parts").glob("*.json"))) == 3, "each stack written once"
    local = tiny_sweep(AXES, train=LONG, path="local", keep_weights=True)
    same_table(result, local)
    same_table(load_sweep(tmp_path / "sweep"), load_sweep(tmp_path / "local"))
    for name in local.runs["run"]:
        assert result.run(name).weights.W_V.equal(local.run(name).weights.W_V)
    ray = sys.modules["ray"]
    assert not ray.is_initialized(), "its own cluster is stopped"
    for name in ("PYTHONBREAKPOINT", *(name for name in os.environ if name.startswith("RAY_"))):
        assert os.environ.get(name) == environment.get(name)


@pytest.mark.slow
def test_no_cluster_at_an_address_is_one_line(tiny_sweep, monkeypatch):
    services = importlib.import_module("ray._private.services")
    # "auto" looks at all processes of the machine: another test, or another user, may have a cluster.
    monkeypatch.setattr(services, "_cached_find_gcs_addresses", functools.cache(frozenset))
    monkeypatch.setattr(services, "find_bootstrap_address", lambda temp_dir: None)
    with pytest.raises(OcrInterpError, match=r"no Ray cluster at auto \("):
        tiny_sweep({"seed": [0]}, engine="ray", ray_address="auto")


@pytest.fixture(scope="module")
def cluster():
    """A session that is open, of two workers."""
    with distributed.environment(), distributed.session(None, 2) as ray:
        yield ray


@pytest.mark.slow
def test_a_run_that_kills_its_workers_is_recorded_and_stops_no_other(tiny_sweep, monkeypatch, cluster):
    """The worker of every stack that holds seed 1 dies, whatever it is stacked with."""

    def dying(stack, options):  # not a function of this module, which the workers cannot import
        if any(config.train.seed == 1 for config in stack):
            os.kill(os.getpid(), signal.SIGKILL)
        return distributed.train_stack(stack, certificates=options.certificates)

    monkeypatch.setattr(distributed, "TRIES", 2)
    monkeypatch.setattr(distributed, "_train", dying)
    result = tiny_sweep({"seed": [0, 1, 2]}, engine="ray", stack=3)
    assert cluster.is_initialized(), "a session that was open stays open"
    assert result.runs["status"].tolist() == ["finished", "failed", "finished"]
    assert result.runs["message"][1].startswith("WorkerCrashedError after 2 tries: ")


@pytest.mark.slow
def test_an_error_in_a_worker_of_ray_is_recorded_and_stops_no_other(tiny_sweep, monkeypatch, cluster):
    def failing_worker(stack, options):  # not a function of this module, which the workers cannot import
        if any(config.train.seed == 1 for config in stack):
            raise RuntimeError("shape mismatch in a worker")
        return distributed.train_stack(stack, certificates=options.certificates)

    monkeypatch.setattr(distributed, "_train", failing_worker)
    result = tiny_sweep({"seed": [0, 1, 2]}, engine="ray", stack=3)
    assert result.runs["status"].tolist() == ["finished", "failed", "finished"]
    assert result.runs["message"][1] == "RuntimeError: shape mismatch in a worker"

"""Type and shape annotations are checked while the tests run, and only then."""

import checker

_HOOK = checker.install()

import gc  # noqa: E402  # the hook must stand before anything that could import the package
import importlib  # noqa: E402
import sys  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from ocr_interp.hooked.protocol import HookedModel  # noqa: E402
from ocr_interp.task import FactRecallTask  # noqa: E402

checker.ask_once(HookedModel)


def pytest_configure() -> None:
    """One thread: results do not depend on the machine, and tiny matrices are faster."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def pytest_collection_finish() -> None:
    """What is imported by now stays: a million objects that no collection of garbage need look at again."""
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_task() -> FactRecallTask:
    """Three pairs with one training and two held-out subjects, two noise tokens, five tokens long."""
    return FactRecallTask(n_pairs=3, m_train=1, m_test=2, n_noise=2, seq_len=5)


@pytest.fixture(scope="session")
def mapped_task() -> FactRecallTask:
    """Unequal groups, two facts that share an implication, a subject order that is not pair-major."""
    return FactRecallTask.from_mapping(
        fact_of_subject=[2, 0, 1, 0, 2],
        implication_of_fact=[1, 0, 1],
        trained=[True, False, True, True, False],
        n_noise=2,
        seq_len=4,
    )


@pytest.fixture(scope="session")
def unchecked() -> SimpleNamespace:
    """The configuration classes as a user has them, without beartype: only so do wrong types reach the
    package's own checks. Second copies, beside the checked modules that all other tests use."""
    names = [
        f"ocr_interp.{name}"
        for name in (
            *("checks", "task", "configuration.model", "configuration.training", "configuration.run"),
            *("llm.facts.configuration", "llm.training.configuration", "graphs.graph"),
        )
    ]
    checked = {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]
    _HOOK.uninstall()
    try:
        copies = {name: importlib.import_module(name) for name in names}
    finally:
        checker.install()
        for name, module in checked.items():
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, module)
    return SimpleNamespace(
        FactRecallTask=copies["ocr_interp.task"].FactRecallTask,
        ModelConfig=copies["ocr_interp.configuration.model"].ModelConfig,
        TrainConfig=copies["ocr_interp.configuration.training"].TrainConfig,
        RunConfig=copies["ocr_interp.configuration.run"].RunConfig,
        CircuitGraph=copies["ocr_interp.graphs.graph"].CircuitGraph,
        FactConfig=copies["ocr_interp.llm.facts.configuration"].FactConfig,
        FinetuneConfig=copies["ocr_interp.llm.training.configuration"].FinetuneConfig,
    )


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs `ocr-interp` in an empty folder and in this process; gives (exit code, stdout, stderr)."""
    from ocr_interp import cli

    def called(*words: str) -> tuple[int | str | None, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ocr-interp", *words])
        capsys.readouterr()
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return called

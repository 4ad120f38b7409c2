"""Fine-tuning that is stopped, killed or finds the disk full, and the same command afterwards."""

import os
import signal

import finetune_elsewhere
import pytest
from other_process import OtherProcess
from safetensors import SafetensorError
from small_facts import SMALL
from toy_adapters import Gate

from ocr_interp.errors import RunError
from ocr_interp.llm import methods
from ocr_interp.llm.training import finetune as module
from ocr_interp.llm.training.configuration import FinetuneConfig, LLMRunConfig
from ocr_interp.llm.training.files.result import read_result
from ocr_interp.llm.training.files.store import RunFolder
from ocr_interp.llm.training.finetune import finetune


def config(**values):
    given = {"model": "tiny", "lr": 1e-2, "steps": 6, "log_every": 3, "batch_size": 6, "device": "cpu"}
    return LLMRunConfig(SMALL, FinetuneConfig(**{**given, **values}))


class Killed(BaseException):
    pass


def left(run_dir):
    """The files of a finished run, by name: their bytes; of the result, what does not depend on the clock."""
    found = {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in sorted(run_dir.rglob("*"))
        if path.is_file() and path.name not in (".lock", "result.json")
    }
    result = read_result(run_dir / "result.json")
    return {**found, "result": {name: value for name, value in result.items() if name != "seconds"}}


def differing(one, other):
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.fixture
def whole(make_model, tmp_path):
    """What a run that nothing stopped leaves."""
    finetune(config(), tmp_path / "whole", lm=make_model(), save_model=True)
    return left(tmp_path / "whole")


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_keeps_everything(which, make_model, tmp_path, whole, monkeypatch):
    update, before = module.Finetuning._update, signal.getsignal(which)

    def and_stop(self):
        if self.step == 1:
            signal.raise_signal(which)
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(module.Finetuning, "_update", and_stop)
        first = finetune(config(), tmp_path / "run", lm=make_model(), save_model=True)
    assert (first.status, first.step) == ("interrupted", 2)
    assert signal.getsignal(which) is before
    assert RunFolder(tmp_path / "run").read_checkpoint().step == 2
    finetune(config(), tmp_path / "run", lm=make_model(), save_model=True)
    assert differing(left(tmp_path / "run"), whole) == []


@pytest.mark.slow
def test_a_request_that_comes_while_the_model_is_kept_does_not_stop_that(
    make_model, tmp_path, whole, monkeypatch
):
    keep = module.keep_model

    def asked(lm, folder):
        signal.raise_signal(signal.SIGTERM)
        keep(lm, folder)

    monkeypatch.setattr(module, "keep_model", asked)
    assert finetune(config(), tmp_path / "run", lm=make_model(), save_model=True).status == "finished"
    assert differing(left(tmp_path / "run"), whole) == []


def test_a_finished_run_is_only_read(make_model, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(module, "Finetuning", None)  # not begun again
    found = finetune(config(), tmp_path / "whole", save_model=True)
    assert (found.status, found.step, found.keeps_model) == ("finished", 6, True)
    assert differing(left(tmp_path / "whole"), whole) == []


@pytest.mark.slow
@pytest.mark.parametrize(("when", "method"), [("before", "gate"), ("after", "full")])
def test_a_death_around_any_write_loses_nothing(when, method, make_model, tmp_path, monkeypatch):
    replace, writes = os.replace, []
    with methods.registered("gate", Gate()):
        recipe = config(method=method, checkpoint_every=3)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *args: (writes.append(args), replace(*args)))
            finetune(recipe, tmp_path / "whole", lm=make_model(), save_model=True)
        expected = left(tmp_path / "whole")
        assert len(writes) > 8

        def die_at(count):
            missing = [count]

            def dying(source, target):
                missing[0] -= 1
                if missing[0] == 0 and when == "before":
                    raise Killed
                replace(source, target)
                if missing[0] == 0:
                    raise Killed

            return dying

        for count in range(1, len(writes) + 1):
            run = tmp_path / str(count)
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", die_at(count))
                with pytest.raises(Killed):
                    finetune(recipe, run, lm=make_model(), save_model=True)
            again = finetune(recipe, run, lm=make_model(), save_model=True)
            assert again.status == "finished"
            assert differing(left(run), expected) == [], f"death {when} write {count}"


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_write(make_model, tmp_path, whole, monkeypatch):
    sync, n_writes = os.fsync, []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", n_writes.append)
        finetune(config(), tmp_path / "count", lm=make_model(), save_model=True)
    for count in range(1, len(n_writes) + 1):
        written = []

        def refuse(descriptor, written=written, count=count):
            written.append(descriptor)
            if len(written) >= count:
                raise OSError(28, "No space left on device")
            sync(descriptor)

        run = tmp_path / str(count)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            with pytest.raises(RunError) as caught:
                finetune(config(), run, lm=make_model(), save_model=True)
        assert "No space left on device" in str(caught.value)
        assert "start again with the same run_dir" in str(caught.value)
        assert list(run.rglob(".tmp-*")) == []
        finetune(config(), run, lm=make_model(), save_model=True)
        assert differing(left(run), whole) == [], f"full at write {count}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
            "File too large",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
        (Exception("No space left on device (os error 28)"), "No space left on device"),  # tokenizers' own
    ],
)
def test_the_result_does_not_depend_on_the_model_being_kept(
    error, reason, make_model, tmp_path, whole, monkeypatch
):
    run, folder = tmp_path / "run", RunFolder(tmp_path / "run")
    lm = make_model()

    def refuse(path, **options):
        (path / "model.safetensors").write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(lm.model, "save_pretrained", refuse)
    with pytest.raises(RunError, match=rf"cannot write .*model: .*{reason}.*same run_dir"):
        finetune(config(), run, lm=lm, save_model=True)
    assert folder.read_result()["history"]["step"] == [0, 3, 6]
    assert folder.history_file.read_bytes() == whole["history.csv"]
    assert folder.read_checkpoint().step == 6
    assert not folder.is_complete()
    assert not folder.model_folder.exists()
    (run / ".tmp-model-abc").mkdir()  # what a process leaves that is killed while it writes
    (run / ".tmp-model-abc" / "model.safetensors").write_bytes(b"half of it")
    only_read = finetune(config(), run)
    assert (only_read.status, only_read.keeps_model) == ("finished", False)
    monkeypatch.setattr(module.Finetuning, "_update", None)  # nothing is trained again
    finetune(config(), run, lm=make_model(), save_model=True)
    assert differing(left(run), whole) == []
    assert not (run / ".tmp-model-abc").exists()


@pytest.mark.slow
def test_without_its_last_checkpoint_the_model_is_trained_again(make_model, tmp_path, whole, monkeypatch):
    """A disk too full for any large file: the result is there, and the same command makes the model."""
    run, lm = tmp_path / "run", make_model()

    def full(*arguments, **options):
        raise RunError("cannot write")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_checkpoint", full)
        patch.setattr(module, "keep_model", full)
        with pytest.raises(RunError, match="cannot write"):
            finetune(config(), run, lm=lm, save_model=True)
    assert RunFolder(run).read_result()["step"] == 6
    finetune(config(), run, lm=make_model(), save_model=True)
    assert differing(left(run), whole) == []


@pytest.fixture
def base(make_model, tmp_path):
    lm = make_model()
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.slow
def test_a_limit_on_file_size_is_one_line_and_the_same_command_goes_on(base, tmp_path):
    """The kernel refuses files of more than some bytes: the model, the history, all; then it does not."""
    limits = (60000, 3000, 100)
    with OtherProcess(finetune_elsewhere.with_limits, tmp_path, base, limits) as child:
        said, complained = child.communicate()
        assert child.wait() == 0
    errors = [line for line in complained.splitlines() if not line.startswith(("step ", "told: "))]
    assert len(errors) == 3, complained
    for line in errors:
        assert line.startswith("ocr-interp: error: cannot write ")
        assert "File too large" in line
    assert said.splitlines()[-1] == f"codes {[0] + 3 * [2, 0, 0]}"
    assert said.count("finished at step 6 of 6") == 1 + 3 * 2
    for limit in limits:
        assert differing(left(tmp_path / str(limit)), left(tmp_path / "whole")) == [], limit


@pytest.mark.slow
def test_sigterm_to_the_command(base, tmp_path):
    with OtherProcess(finetune_elsewhere.until_stopped, tmp_path / "whole", base) as child:
        for line in child.stderr:
            if line.startswith("step     6"):
                child.send_signal(signal.SIGTERM)
                break
        said = child.stderr.read().splitlines()
        assert child.wait() == 1
    assert said[-1].startswith("stopped at step ")
    assert RunFolder(tmp_path / "whole").read_checkpoint().step >= 6

"""Results are one short line where a session echoes them: arrays and tables are left out."""

import dataclasses
import importlib
import inspect
import re

import pytest

from ocr_interp import FactRecallTask, ModelConfig, TrainConfig, attribute, certify, solve, train
from ocr_interp.circuits.analysis import analyze_run
from ocr_interp.graphs.building import prompt_graph
from ocr_interp.graphs.mechanism_graph import mechanism_graph
from ocr_interp.mitigation import mitigate
from ocr_interp.theory import deep_point, saddle_solution, solve_update
from ocr_interp.training.long_descent import long_descent

TASK = FactRecallTask(4, 1, 2, n_noise=1, seq_len=4)
QUIET = FactRecallTask(4, 1, 2, n_noise=0, seq_len=3, implied_relations=2)
LONGEST = 500
ROOMS = ("ablation", "circuits", "discovery", "graphs", "llm", "maps", "mitigation", "optim", "theory")
PARTS = ("", *(f".{name}" for name in ROOMS))
ARRAY = re.compile(r"\b(Float|Int|Bool)\[|DataFrame|\bTensor\b|ndarray")


@pytest.fixture(scope="module")
def run():
    recipe = TrainConfig(steps=4, batch_size=12, snapshots=2, device="cpu")
    return train(TASK, ModelConfig(d_head=4), recipe, progress=False)


ASKED = {
    "run": lambda run: run,
    "snapshot": lambda run: run.at(0),
    "model": lambda run: run.of_route(None),
    "weights": lambda run: run.weights,
    "circuit": lambda run: run.circuit,
    "inputs": lambda run: run.circuit.inputs,
    "analysis": analyze_run,
    "spectrum": lambda run: run.circuit.spectrum(0.05),
    "block": lambda run: run.circuit.spectrum(0.05).blocks[0],
    "energy": lambda run: run.circuit.energy,
    "embeddings": lambda run: run.circuit.embeddings(),
    "attention": lambda run: run.circuit.attention_by_kind,
    "alignment": lambda run: run.circuit.alignment(solve(TASK), random_seeds=(0,)),
    "attribution": lambda run: attribute(run, ["s1", "r2", "EOS"], "c0"),
    "prompt graph": lambda run: prompt_graph(run, ["s1", "r2", "EOS"]),
    "mechanism": mechanism_graph,
    "certificate": lambda run: certify(run.circuit.W, TASK, inputs="noise_eos"),
    "solution": lambda run: solve(TASK, "spectral"),
    "saddle": lambda run: saddle_solution(QUIET),
    "deep point": lambda run: deep_point(FactRecallTask(4, 1, 2, n_noise=0, seq_len=3), 3),
    "update": lambda run: solve_update(TASK, solve(TASK, "frobenius").W * 0.5),
    "descent": lambda run: long_descent(TASK, log10_time=0.5),
    "mitigated": lambda run: mitigate(QUIET, "r3", margin=1.0),
}


@pytest.mark.parametrize("name", ASKED)
def test_results_are_echoed_in_one_line(name, run):
    found = repr(ASKED[name](run))
    assert len(found) <= LONGEST, found
    assert "\n" not in found


def test_no_exported_result_echoes_arrays():
    echoed = []
    for part in PARTS:
        module = importlib.import_module(f"ocr_interp{part}")
        for name in dir(module):
            kind = getattr(module, name)
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
                continue
            params = kind.__dataclass_params__
            if not params.repr or "\n    def __repr__" in inspect.getsource(kind):
                continue  # written by hand
            echoed += [
                f"{name}.{each.name}"
                for each in dataclasses.fields(kind)
                if each.repr and ARRAY.search(str(each.type))
            ]
    assert echoed == []

"""ocr-interp: mechanistic interpretability of out-of-context reasoning in transformers.

OCR means out-of-context reasoning here, never character recognition. The public names below are
imported when they are first used: `import ocr_interp` pulls in neither torch nor transformer_lens.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocr_interp.ablation.applying import ablated as ablated
    from ocr_interp.ablation.circuit_parts import output_subspace as output_subspace
    from ocr_interp.ablation.circuit_parts import ov_block as ov_block
    from ocr_interp.ablation.circuit_parts import singular_block as singular_block
    from ocr_interp.ablation.examples import Examples as Examples
    from ocr_interp.ablation.examples import task_examples as task_examples
    from ocr_interp.ablation.study import AblationStudy as AblationStudy
    from ocr_interp.ablation.study import run_ablation_study as run_ablation_study
    from ocr_interp.ablation.where.site import Site as Site
    from ocr_interp.ablation.where.site import tokens_of_kind as tokens_of_kind
    from ocr_interp.circuits.attribution.of_model import attribute_model as attribute_model
    from ocr_interp.circuits.attribution.of_run import Attribution as Attribution
    from ocr_interp.circuits.attribution.of_run import attribute_run as attribute_run
    from ocr_interp.circuits.circuit import OVCircuit as OVCircuit
    from ocr_interp.circuits.geometry.alignment import AlignmentReport as AlignmentReport
    from ocr_interp.configuration.model import ModelConfig as ModelConfig
    from ocr_interp.configuration.run import RunConfig as RunConfig
    from ocr_interp.configuration.training import TrainConfig as TrainConfig
    from ocr_interp.graphs.building import attribution_graph as attribution_graph
    from ocr_interp.graphs.building import prompt_graph as prompt_graph
    from ocr_interp.graphs.circuit_graph import circuit_graph as circuit_graph
    from ocr_interp.graphs.graph import CircuitGraph as CircuitGraph
    from ocr_interp.graphs.head_graph import head_graph as head_graph
    from ocr_interp.graphs.mechanism_graph import mechanism_graph as mechanism_graph
    from ocr_interp.linalg.spectrum import ov_spectra as ov_spectra
    from ocr_interp.models.hooked39 import build_model as build_model
    from ocr_interp.sweeps.result import SweepResult as SweepResult
    from ocr_interp.sweeps.sweep import load_sweep as load_sweep
    from ocr_interp.sweeps.sweep import sweep as sweep
    from ocr_interp.task import FactRecallTask as FactRecallTask
    from ocr_interp.theory.certificate import Certificate as Certificate
    from ocr_interp.theory.certificate import HeldOutBeta as HeldOutBeta
    from ocr_interp.theory.certificate import certify as certify
    from ocr_interp.theory.certificate import cosine_with as cosine_with
    from ocr_interp.theory.certificate import held_out_beta as held_out_beta
    from ocr_interp.theory.limits import trained_attention_beta_interval as trained_attention_beta_interval
    from ocr_interp.theory.solution import Solution as Solution
    from ocr_interp.theory.solve import solve as solve
    from ocr_interp.training.loop import train as train
    from ocr_interp.training.run import Run as Run
    from ocr_interp.training.store import load_run as load_run
    from ocr_interp.viz.diagram.drawing import draw_circuit as draw_circuit
    from ocr_interp.viz.diagram.drawing import save_diagram as save_diagram

__version__ = "0.1.0"

_HOME_OF_NAME = {
    "ablated": "ocr_interp.ablation.applying",
    "AblationStudy": "ocr_interp.ablation.study",
    "Examples": "ocr_interp.ablation.examples",
    "Site": "ocr_interp.ablation.where.site",
    "output_subspace": "ocr_interp.ablation.circuit_parts",
    "ov_block": "ocr_interp.ablation.circuit_parts",
    "run_ablation_study": "ocr_interp.ablation.study",
    "singular_block": "ocr_interp.ablation.circuit_parts",
    "task_examples": "ocr_interp.ablation.examples",
    "tokens_of_kind": "ocr_interp.ablation.where.site",
    "AlignmentReport": "ocr_interp.circuits.geometry.alignment",
    "Attribution": "ocr_interp.circuits.attribution.of_run",
    "attribute_run": "ocr_interp.circuits.attribution.of_run",
    "circuit_graph": "ocr_interp.graphs.circuit_graph",
    "CircuitGraph": "ocr_interp.graphs.graph",
    "attribution_graph": "ocr_interp.graphs.building",
    "prompt_graph": "ocr_interp.graphs.building",
    "head_graph": "ocr_interp.graphs.head_graph",
    "mechanism_graph": "ocr_interp.graphs.mechanism_graph",
    "attribute_model": "ocr_interp.circuits.attribution.of_model",
    "OVCircuit": "ocr_interp.circuits.circuit",
    "ov_spectra": "ocr_interp.linalg.spectrum",
    "draw_circuit": "ocr_interp.viz.diagram.drawing",
    "save_diagram": "ocr_interp.viz.diagram.drawing",
    "SweepResult": "ocr_interp.sweeps.result",
    "load_sweep": "ocr_interp.sweeps.sweep",
    "sweep": "ocr_interp.sweeps.sweep",
    "FactRecallTask": "ocr_interp.task",
    "Certificate": "ocr_interp.theory.certificate",
    "HeldOutBeta": "ocr_interp.theory.certificate",
    "Solution": "ocr_interp.theory.solution",
    "ModelConfig": "ocr_interp.configuration.model",
    "Run": "ocr_interp.training.run",
    "RunConfig": "ocr_interp.configuration.run",
    "TrainConfig": "ocr_interp.configuration.training",
    "build_model": "ocr_interp.models.hooked39",
    "certify": "ocr_interp.theory.certificate",
    "cosine_with": "ocr_interp.theory.certificate",
    "held_out_beta": "ocr_interp.theory.certificate",
    "load_run": "ocr_interp.training.store",
    "solve": "ocr_interp.theory.solve",
    "train": "ocr_interp.training.loop",
    "trained_attention_beta_interval": "ocr_interp.theory.limits",
}

__all__ = ["__version__", *_HOME_OF_NAME]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF_NAME:
        raise AttributeError(f"module 'ocr_interp' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME_OF_NAME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

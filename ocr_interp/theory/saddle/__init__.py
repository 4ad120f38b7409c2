"""The KKT point that gradient descent goes to from a small start, and the flow that leads there."""

from ocr_interp.theory.saddle.deep import DeepPoint, PairCompletion, deep_point, pair_completions
from ocr_interp.theory.saddle.dual import SaddleCertificate
from ocr_interp.theory.saddle.flow import FlowPath, symmetric_flow
from ocr_interp.theory.saddle.solution import SaddleSolution, has_saddle, saddle_solution
from ocr_interp.theory.saddle.start import SymmetricFactors

__all__ = [
    "DeepPoint",
    "FlowPath",
    "PairCompletion",
    "SaddleCertificate",
    "SaddleSolution",
    "SymmetricFactors",
    "deep_point",
    "has_saddle",
    "pair_completions",
    "saddle_solution",
    "symmetric_flow",
]

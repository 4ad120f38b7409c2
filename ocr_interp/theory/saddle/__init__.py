"""The KKT point that gradient descent goes to from a small start, and the flow that leads there."""

from ocr_interp.theory.saddle.dual import SaddleCertificate
from ocr_interp.theory.saddle.flow import FlowPath, symmetric_flow
from ocr_interp.theory.saddle.solution import SaddleSolution, has_saddle, saddle_solution
from ocr_interp.theory.saddle.start import SymmetricFactors

__all__ = [
    "FlowPath",
    "SaddleCertificate",
    "SaddleSolution",
    "SymmetricFactors",
    "has_saddle",
    "saddle_solution",
    "symmetric_flow",
]

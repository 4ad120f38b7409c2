"""The theory needs numpy, scipy and cvxpy only; its folders build on each other in one direction."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ocr_interp.theory

ORDER = (
    "norms",
    "problem",
    "residuals",
    "certificate",
    "geometry",
    "reduction",
    "closed",
    "saddle",
    "solver",
    "subject_table",
    "solution",
    "solve",
)

CODE = """
import sys
import pytest

import ocr_interp.theory
assert not {"numpy", "scipy", "cvxpy"} & set(sys.modules), "the names are lazy"
from ocr_interp.theory import certify, solve
import ocr_interp.theory.solve
assert ocr_interp.theory.solve is solve, "the function, also after its module was imported"
from ocr_interp import FactRecallTask
assert "cvxpy" not in sys.modules, "cvxpy costs a second and is not needed yet"
task = FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True])
solution = solve(task, method="clarabel")
certify(solution.W, task)
solve(FactRecallTask()).certificate
heavy = {"torch", "transformer_lens", "pandas", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.slow
def test_neither_torch_nor_transformer_lens():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_unknown_ones_do_not():
    for name in dir(ocr_interp.theory):
        assert getattr(ocr_interp.theory, name) is not None
    assert not hasattr(ocr_interp.theory, "predicted_solution")


def test_folders_build_on_each_other_in_one_direction():
    """Imports inside functions count; `closed` and `solver` stand side by side."""
    root, package = Path(ocr_interp.theory.__file__).parent, "ocr_interp.theory."
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(package):
                used = node.module.removeprefix(package).split(".")[0]
                assert ORDER.index(used) <= ORDER.index(room), f"{path.name} imports {node.module}"
                assert {used, room} != {"closed", "solver"}

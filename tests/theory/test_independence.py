"""The theory needs numpy, scipy and cvxpy only: checked in a process of its own."""

import subprocess
import sys

CODE = """
import sys
from ocr_interp import FactRecallTask, certify, solve
assert "cvxpy" not in sys.modules, "cvxpy costs a second and is not needed yet"
task = FactRecallTask.from_mapping([0, 0, 1], [0, 1], [True, False, True])
solution = solve(task, method="clarabel")
certify(solution.W, task)
solve(FactRecallTask())
heavy = {"torch", "transformer_lens", "pandas", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_neither_torch_nor_transformer_lens():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

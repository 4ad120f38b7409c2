"""What certificates refuse before any mathematics."""

import numpy as np
import pytest

from ocr_interp import FactRecallTask, certify, held_out_beta
from ocr_interp.errors import ConfigError, WeightsError


class Tensor:
    """Something with a graph, as a torch tensor is."""

    def detach(self):
        raise AssertionError("never called")


def test_a_tensor_is_refused_with_what_to_pass():
    from ocr_interp.theory.problem import as_matrix

    with pytest.raises(WeightsError, match=r"got a tensor: pass W.detach\(\).cpu\(\).numpy\(\)"):
        as_matrix(Tensor())


def test_complex_numbers_are_refused():
    task = FactRecallTask(2, 1, 1)
    W = np.ones((6, 4)) * 1j
    from ocr_interp.theory.problem import max_margin_problem

    with pytest.raises(WeightsError, match="real numbers, got dtype complex128"):
        max_margin_problem(task).restrict(W)


def test_a_mapping_that_is_no_sequence_is_refused():
    with pytest.raises(ConfigError, match="fact_of_subject must be a sequence"):
        FactRecallTask.from_mapping("0011", [0, 1], [True] * 4)


def test_beta_of_a_plain_list_of_numbers_works():
    W = np.zeros((6, 4))
    W[0, 2] = W[1, 2] = W[2, 3] = W[3, 3] = 1.0
    assert held_out_beta(W, FactRecallTask(2, 1, 1)).projection == 1
    assert certify(W, FactRecallTask(2, 1, 1)).message

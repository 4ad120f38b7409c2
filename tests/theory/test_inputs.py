"""What certificates refuse before any mathematics."""

import numpy as np
import pytest

from ocr_interp import FactRecallTask, certify, held_out_beta
from ocr_interp.errors import WeightsError


class Tensor:
    """Something with a graph, as a torch tensor is."""

    def detach(self):
        raise AssertionError("never called")


def test_a_tensor_is_refused_with_what_to_pass():
    from ocr_interp.theory.problem import as_matrix

    with pytest.raises(WeightsError, match=r"got a tensor: pass W.detach\(\).cpu\(\).numpy\(\)"):
        as_matrix(Tensor())


def test_beta_of_a_plain_list_of_numbers_works():
    W = np.zeros((6, 4))
    W[0, 2] = W[1, 2] = W[2, 3] = W[3, 3] = 1.0
    assert held_out_beta(W, FactRecallTask(2, 1, 1)).projection == 1
    assert certify(W, FactRecallTask(2, 1, 1)).message

"""Layouts of tokens over Kronecker factors: against numpy's kron, by hand, and refusals."""

import numpy as np
import pytest

from ocr_interp.errors import ConfigError
from ocr_interp.layouts import LAYOUTS, KroneckerLayout, token_layout
from ocr_interp.task import FactRecallTask

TASK = FactRecallTask(4, 1, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_sum_of_kronecker_products_is_a_product_of_vectors_after_rearranging(layout, share):
    found = token_layout(TASK, layout, permuted_share=share, layout_seed=3 if share else 0)
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(2, *found.a_shape)), rng.normal(size=(2, *found.b_shape))
    whole = np.kron(A[0], B[0]) + np.kron(A[1], B[1])
    grid = whole[np.ix_(found.rows, found.columns)]
    R = found.rearranged(grid)
    np.testing.assert_allclose(R[0], A.reshape(2, -1).T @ B.reshape(2, -1), atol=1e-12)
    np.testing.assert_array_equal(found.restored(R), grid)


def test_aligned_and_transposed_by_hand():
    aligned, transposed = token_layout(TASK), token_layout(TASK, "transposed")
    assert (aligned.a_shape, aligned.b_shape) == ((4, 4), (3, 2))
    assert (transposed.a_shape, transposed.b_shape) == ((3, 2), (4, 4))
    assert aligned.rows == tuple(range(12))
    assert aligned.columns == (0, 2, 4, 6, 1, 3, 5, 7)
    assert transposed.rows == (0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11)
    assert transposed.columns == tuple(range(8))
    assert "row 1 of A     s3 s4 s5" in aligned.table(TASK)
    assert "column 0 of A  b0 c0" in aligned.table(TASK)
    assert "column 1 of A  c0 c1 c2 c3" in transposed.table(TASK)


def test_own_layers_have_one_type_of_answers_each():
    found = token_layout(TASK, shared_phm_rule=False)
    assert (found.layers, found.a_shape, found.b_shape) == (2, (4, 4), (3, 1))
    layer = found.index // (16 * 3)
    assert (layer[:, :4] == 0).all()
    assert (layer[:, 4:] == 1).all()
    assert "column 3 of A  c3 (layer 1)" in found.table(TASK)


def test_a_task_in_another_order_has_the_same_grid():
    shuffled = FactRecallTask.from_mapping([1, 0, 1, 0], [1, 0], [True, True, False, False])
    found = token_layout(shuffled)
    # Pairs (b0, c1) and (b1, c0); told subjects of a pair first.
    assert found.rows == (2, 0, 3, 1)
    assert found.columns == (0, 2, 3, 1)


def test_a_share_of_the_tokens_moves_and_a_seed_decides_which():
    still, half, all_moved = (token_layout(TASK, permuted_share=share) for share in (0.0, 0.5, 1.0))
    moved = [np.not_equal(still.rows, other.rows).sum() for other in (half, all_moved)]
    assert moved == [6, 12]
    assert np.not_equal(still.columns, half.columns).sum() == 4
    assert half == token_layout(TASK, permuted_share=0.5)
    assert half != token_layout(TASK, permuted_share=0.5, layout_seed=1)


def test_layouts_that_are_no_bijections_are_refused():
    with pytest.raises(ConfigError, match=r"rows must give every token a place .* no token at 1: a layout"):
        KroneckerLayout((0, 0), (0, 1), (1, 1), (2, 2))
    with pytest.raises(ConfigError, match=r"columns must give every token a place"):
        KroneckerLayout((0, 1), (1, 2), (1, 1), (2, 2))
    with pytest.raises(ConfigError, match=r"must make 2 subjects x 2 answers, got 4 x 2"):
        KroneckerLayout((0, 1), (0, 1), (2, 1), (2, 2))


def test_bad_options_are_refused_with_what_is_allowed():
    with pytest.raises(ConfigError, match=r"12 subjects and 8 answers: one of 1, 2, 4, got 3"):
        token_layout(TASK, "vocabulary", phm_dim=3)
    with pytest.raises(ConfigError, match="layout must be one of 'aligned', 'transposed', 'vocabulary'"):
        token_layout(TASK, "pairs")
    with pytest.raises(ConfigError, match=r"permuted_share must be from 0 to 1, got 1\.5"):
        token_layout(TASK, permuted_share=1.5)
    with pytest.raises(ConfigError, match="layout_seed chooses which tokens change places, got 2 with"):
        token_layout(TASK, layout_seed=2)
    with pytest.raises(ConfigError, match="shared_phm_rule=False needs layout='aligned' or 'transposed'"):
        token_layout(TASK, "vocabulary", shared_phm_rule=False)
    with pytest.raises(ConfigError, match=r"of a layer, 12 subjects and 4 answers: one of 1, 2, 4, got 8"):
        token_layout(TASK, shared_phm_rule=False, phm_dim=8)


def test_a_task_that_is_no_grid_is_refused_and_the_vocabulary_order_takes_it(mapped_task):
    with pytest.raises(ConfigError, match=r"needs pairs of equal numbers of subjects.*take layout='vocab"):
        token_layout(mapped_task)
    assert token_layout(mapped_task, "vocabulary", phm_dim=5).a_shape == (5, 5)
    with pytest.raises(ConfigError, match=r"got 3 \(the number of facts, which phm_dim=0 stands for\)"):
        token_layout(mapped_task, "vocabulary")

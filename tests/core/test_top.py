"""The best of rows of scores, against a whole sort."""

import numpy as np
import pytest
import torch

from recbole_freqd.core.top import best_of


@pytest.mark.parametrize(
    "shape", [(5, 7, 3), (9, 500, 4), (3, 40, 40), (6, 1000, 1), (4, 999, 7), (3, 5003, 20)]
)
@pytest.mark.parametrize("kind", ["distinct", "ties", "all the same", "few", "none"])
def test_the_best_of_a_row_are_those_of_a_whole_sort_ties_by_id(shape, kind):
    rows, n_items, k = shape
    scores = torch.randn(rows, n_items, generator=torch.Generator().manual_seed(0))
    if kind == "ties":
        scores = (2 * scores).round()
    elif kind == "all the same":
        scores[:-1] = 1.0
    elif kind == "few":
        scores[:, k // 2 :] = -torch.inf
    elif kind == "none":
        scores[:] = -torch.inf
    values, columns = (found.numpy() for found in best_of(scores, k))
    for row, own in enumerate(scores.numpy()):
        order = np.lexsort((np.arange(n_items), -own))[:k]
        np.testing.assert_array_equal(values[row], own[order])
        np.testing.assert_array_equal(columns[row], np.where(np.isneginf(own[order]), 0, order))


def test_negative_scores_and_zeros_of_both_signs_keep_their_order():
    scores = torch.tensor([[-0.0, -2.5, 0.0, 1e-42, -1e-42, -torch.inf]])
    values, columns = best_of(scores, 6)
    assert columns[0].tolist() == [3, 0, 2, 4, 1, 0]
    torch.testing.assert_close(values[0, :5], scores[0, [3, 0, 2, 4, 1]], rtol=0, atol=0)
    assert values[0, 5] == -torch.inf


def test_what_is_no_number_is_never_lost():
    scores = torch.arange(100.0)[None].repeat(2, 1)
    scores[1, 3] = torch.nan
    values, columns = best_of(scores, 2)
    assert columns.tolist() == [[99, 98], [3, 99]] and values[1, 0].isnan()

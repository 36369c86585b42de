"""New vectors turned onto old ones."""

import numpy as np
import pytest

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.features.align import turn_onto


def some_rows(n, d, seed):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_vectors_that_were_turned_are_turned_back():
    old = some_rows(20, 5, 0)
    rotation = np.linalg.qr(some_rows(5, 5, 1))[0]
    turn = turn_onto(old @ rotation, old)
    np.testing.assert_allclose(turn.rotation, rotation.T, atol=1e-12)
    assert turn.drift_after < 1e-12 < turn.drift_before and turn.shared == 20


def test_no_inner_product_changes_and_nothing_is_further_away_than_before():
    users, items, old = some_rows(6, 4, 0), some_rows(9, 4, 1), some_rows(15, 4, 2)
    turn = turn_onto(np.concatenate([users, items]), old)
    turned = users @ turn.rotation, items @ turn.rotation
    np.testing.assert_allclose(turned[0] @ turned[1].T, users @ items.T, atol=1e-12)
    assert (
        np.square(np.concatenate(turned) - old).sum()
        <= np.square(np.concatenate([users, items]) - old).sum()
    )


def test_no_turn_of_many_comes_closer():
    new, old = some_rows(12, 3, 0), some_rows(12, 3, 1)
    best = np.square(new @ turn_onto(new, old).rotation - old).sum()
    for seed in range(50):
        other = np.linalg.qr(some_rows(3, 3, seed))[0]
        assert np.square(new @ other - old).sum() >= best - 1e-12


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4, 3), (5, 3)), ((0, 3), (0, 3))])
def test_other_widths_and_nothing_shared_are_refused(shapes):
    with pytest.raises(ConfigError, match="at least one user or item in both"):
        turn_onto(*map(np.zeros, shapes))

"""Vectors in int8."""

import torch

from recbole_freqd.core.quantise import Int8Rows, int8_ranker


def rows(n=50, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_row_is_off_by_half_its_scale_at_most():
    table = rows() * torch.logspace(-3, 3, 50)[:, None]
    found = Int8Rows.of(table)
    assert found.values.dtype == torch.int8 and found.values.abs().max() == 127
    off = (found.restored() - table).abs()
    assert (off <= found.scales[:, None] * 0.5001).all()


def test_rows_of_zeros_stay_zeros_and_what_is_stored_is_stored_again_as_it_is():
    table = rows()
    table[[0, 7]] = 0
    found = Int8Rows.of(table)
    assert not found.restored()[[0, 7]].any()
    again = Int8Rows.of(found.restored())
    assert torch.equal(again.values, found.values)


def test_it_takes_a_byte_a_number_and_four_a_row():
    assert Int8Rows.of(rows(10, 6)).nbytes == 10 * 6 + 4 * 10


def test_columns_of_biases_stay_as_they_are():
    users, items = rows(5, 4), rows(9, 4, seed=1)
    users[:, 3], items[:, 3] = 1.0, torch.linspace(-300, 300, 9)
    ranker = int8_ranker(users, items, exact_columns=1)
    expected = Int8Rows.of(users[:, :3]).restored() @ Int8Rows.of(items[:, :3]).restored().T
    torch.testing.assert_close(ranker.block(torch.arange(5)), expected + items[:, 3])
    torch.testing.assert_close(
        int8_ranker(users, items).block(torch.arange(5)),
        Int8Rows.of(users).restored() @ Int8Rows.of(items).restored().T,
    )

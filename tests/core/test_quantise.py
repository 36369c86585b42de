"""Vectors in int8."""

import torch

from recbole_freqd.core.quantise import Int8Rows


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

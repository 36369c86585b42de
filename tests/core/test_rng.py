"""rng: our random numbers come from our own streams, and RecBole's stay where they were."""

import random

import numpy as np
import pytest
import torch

from recbole_freqd.core.rng import RandomStream, derived_seed, rng_untouched


def draw_everywhere():
    """One number of each global stream; draws, so it moves them on."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.fixture
def seeded():
    """Global streams at a known place, put back afterwards."""
    with rng_untouched():
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        yield


def draws(stream):
    like = torch.zeros(1)
    return stream.bernoulli((50,), 0.5, like), stream.uniform_(torch.empty(50), 2.0)


# --- streams ---------------------------------------------------------------------------------


def test_equal_seeds_give_equal_numbers_and_other_seeds_others():
    (mask, values), (same_mask, same_values) = draws(RandomStream(5)), draws(RandomStream(5))
    assert torch.equal(mask, same_mask)
    assert torch.equal(values, same_values)
    other_mask, other_values = draws(RandomStream(6))
    assert not torch.equal(mask, other_mask)
    assert not torch.equal(values, other_values)


def test_seeds_of_places_are_the_same_in_every_process_and_version():
    seeds = {(2020,): 982676888708563711, (2020, 0): 2488896975705134157}
    seeds |= {(2020, 3, 1): 3259926105682474616, (-1, 2): 7917742414823320914}
    assert {numbers: derived_seed(*numbers) for numbers in seeds} == seeds


def test_places_in_another_order_or_with_a_zero_more_have_seeds_of_their_own():
    places = [(), (0,), (0, 0), (1,), (0, 1), (1, 0), (1, 0, 0), (2**32 - 1,), (0, 0, 1)]
    seeds = {derived_seed(seed, *place) for seed in (0, 1, -1) for place in places}
    assert len(seeds) == 3 * len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_stream_restarts_at_a_place_whatever_was_drawn_before():
    stream, other = RandomStream(5), RandomStream(5)
    draws(other)
    for each in (stream, other):
        each.restart(3, 1)
    assert torch.equal(draws(stream)[0], draws(other)[0])
    other.restart(3, 2)
    stream.restart(3, 1)
    assert not torch.equal(draws(stream)[0], draws(other)[0])


def test_a_stream_moves_on_from_draw_to_draw():
    stream = RandomStream(5)
    assert not torch.equal(draws(stream)[0], draws(stream)[0])


def test_a_stream_neither_moves_nor_follows_the_global_ones(seeded):
    with rng_untouched():
        expected_globals = draw_everywhere()
    expected = draws(RandomStream(5))
    torch.manual_seed(99)
    stream = RandomStream(5)
    assert all(torch.equal(one, other) for one, other in zip(draws(stream), expected))
    torch.manual_seed(3)
    draws(stream)
    assert draw_everywhere() == expected_globals


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_a_mask_keeps_with_the_probability_asked_for(probability):
    mask = RandomStream(0).bernoulli((200, 100), probability, torch.zeros(1))
    assert (mask.dtype, mask.shape) == (torch.bool, (200, 100))
    # 5 standard deviations of a mean of 20,000
    tolerance = 5 * (probability * (1 - probability) / 20_000) ** 0.5
    assert float(mask.float().mean()) == pytest.approx(probability, abs=tolerance)


def test_uniform_fills_in_place_from_both_sides_of_zero_up_to_the_bound():
    parameter = torch.nn.Parameter(torch.full((2000,), 9.0))
    assert RandomStream(0).uniform_(parameter, 0.5) is parameter
    values = parameter.detach()
    assert float(values.abs().max()) <= 0.5
    assert float(values.min()) < -0.45
    assert float(values.max()) > 0.45


def test_a_restored_stream_goes_on_where_the_saved_one_was():
    stream = RandomStream(5)
    draws(stream)
    state = stream.state_dict()
    expected = draws(stream)
    restored = RandomStream(123)
    restored.load_state_dict(state)
    assert all(torch.equal(one, other) for one, other in zip(draws(restored), expected))


def test_a_device_has_one_stream_whether_named_by_a_word_or_an_object():
    stream = RandomStream(5)
    assert stream.on("cpu") is stream.on(torch.device("cpu"))
    assert list(stream.state_dict()) == ["cpu"]


@pytest.mark.gpu
def test_a_stream_on_a_gpu_is_its_own_and_its_state_can_be_restored():
    stream, like = RandomStream(5), torch.zeros(1, device="cuda")
    stream.bernoulli((50,), 0.5, like)
    state = stream.state_dict()
    mask = stream.bernoulli((50,), 0.5, like)
    assert mask.device == like.device
    restored = RandomStream(0)
    restored.load_state_dict(state)
    assert torch.equal(restored.bernoulli((50,), 0.5, like), mask)


# --- untouched -------------------------------------------------------------------------------


def test_what_runs_inside_leaves_the_global_streams_and_the_given_generators(seeded):
    generator = torch.Generator().manual_seed(4)
    with rng_untouched(generator):
        expected = (*draw_everywhere(), float(torch.rand((), generator=generator)))
    with rng_untouched(generator):
        random.seed(50)
        np.random.seed(51)
        torch.manual_seed(52)
        torch.rand(7, generator=generator)
    assert (*draw_everywhere(), float(torch.rand((), generator=generator))) == expected


def test_the_streams_are_put_back_after_an_error_as_well(seeded):
    generator = torch.Generator().manual_seed(4)
    before = generator.get_state()
    with rng_untouched():
        expected = draw_everywhere()
    with pytest.raises(ZeroDivisionError), rng_untouched(generator):
        draw_everywhere()
        torch.rand(7, generator=generator)
        1 / 0  # noqa: B018
    assert draw_everywhere() == expected
    assert torch.equal(generator.get_state(), before)


@pytest.mark.gpu
def test_the_streams_of_a_gpu_are_put_back(seeded):
    torch.cuda.manual_seed_all(8)
    with rng_untouched():
        expected = float(torch.rand((), device="cuda"))
    assert float(torch.rand((), device="cuda")) == expected

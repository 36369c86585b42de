"""Projectors: formula, dropout, and where their random numbers come from."""

import pytest
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import WeightedSums
from recbole_freqd.losses.projectors import LinearProjector, MLPProjector, make_projector


def test_the_mlp_is_the_mean_of_its_experts():
    projector = MLPProjector(3, 5, RandomStream(0), experts=4, hidden=7)
    x = torch.randn(6, 3)
    each = [
        torch.relu(x @ w1 + b1) @ w2 + b2
        for w1, b1, w2, b2 in zip(
            projector.weight_in, projector.bias_in, projector.weight_out, projector.bias_out
        )
    ]
    torch.testing.assert_close(projector(x), torch.stack(each).mean(0))


def test_hidden_none_is_the_teachers_width():
    assert MLPProjector(3, 5, RandomStream(0)).weight_in.shape == (1, 3, 5)


def test_the_linear_projector_is_affine():
    projector = LinearProjector(3, 5, RandomStream(0))
    x = torch.randn(6, 3)
    torch.testing.assert_close(projector(x), x @ projector.weight + projector.bias)


def test_dropout_is_off_in_eval_mode_and_unbiased_in_train_mode():
    projector = MLPProjector(4, 6, RandomStream(0), experts=2, hidden=8, dropout=0.4)
    with torch.no_grad():
        for weight in projector.parameters():
            weight.abs_()  # where no ReLU cuts, the mean over masks is the value without any
    x = torch.ones(20_000, 4)
    projector.eval()
    without = projector(x)
    assert torch.equal(projector(x), without)
    projector.train()
    torch.testing.assert_close(projector(x).mean(0), without[0], rtol=0.02, atol=0.0)
    assert projector(x).std(0).min() > 0.1


def test_every_expert_draws_masks_of_its_own_for_its_input_and_its_hidden_layer(monkeypatch):
    projector = MLPProjector(4, 6, RandomStream(0), experts=3, hidden=8, dropout=0.4)
    drawn, shapes = projector.stream.bernoulli, []
    monkeypatch.setattr(
        projector.stream,
        "bernoulli",
        lambda shape, *more: shapes.append(shape) or drawn(shape, *more),
    )
    projector(torch.ones(5, 4))
    assert shapes == [(5, 4), (5, 8)] * 3


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_filter_before_the_last_layer_is_one_after_it_value_and_gradient(dropout):
    mix = torch.tensor([[0.5, 0.0, -0.2, 0.0], [0.0, 2.0, 0.0, 0.7], [1.0, 0.0, 0.0, 0.3]])
    owner, columns = mix.nonzero().T
    sums = WeightedSums(owner, torch.tensor([0, 2, 4]), columns, mix[owner, columns], 4)
    results = []
    for cheap in (False, True):
        projector = MLPProjector(3, 5, RandomStream(0), experts=2, hidden=7, dropout=dropout)
        x = torch.linspace(-1, 1, 12).view(4, 3).requires_grad_()
        made = projector.of_filtered(x, sums) if cheap else mix @ projector(x)
        made.square().sum().backward()
        results.append([made, x.grad, *(weight.grad for weight in projector.parameters())])
    for cheap, plain in zip(*results):
        torch.testing.assert_close(cheap, plain)


def test_neither_making_nor_running_one_touches_torchs_global_stream():
    before = torch.random.get_rng_state()
    MLPProjector(4, 6, RandomStream(0), experts=2, dropout=0.4)(torch.ones(5, 4))
    LinearProjector(4, 6, RandomStream(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_seed_decides_the_initial_weights():
    same = [LinearProjector(4, 6, RandomStream(seed)).weight for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])


def test_initial_weights_have_the_range_of_torchs_linear():
    projector = MLPProjector(16, 400, RandomStream(0), experts=2, hidden=900)
    assert projector.weight_in.abs().max().item() == pytest.approx(16**-0.5, rel=1e-2)
    assert projector.weight_out.abs().max().item() == pytest.approx(900**-0.5, rel=1e-2)


def test_gradients_are_right():
    projector = make_projector(
        "mlp", 2, 3, RandomStream(0), experts=2, hidden=4, dropout=0.0
    ).double()
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(projector, (x,))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="projector: got 'conv'"):
        make_projector("conv", 2, 3, RandomStream(0), experts=1, hidden=None, dropout=0.0)


def test_a_filter_before_a_linear_projector_is_one_after_it_with_the_bias_times_its_row_sums():
    projector, mix = LinearProjector(3, 5, RandomStream(0)), torch.randn(4, 6)
    x, totals = torch.randn(6, 3), mix.sum(1)
    after = mix @ projector(x)
    torch.testing.assert_close(projector.of_filtered(mix @ x, totals), after)
    torch.testing.assert_close(
        torch.cat([mix @ x, totals[:, None]], 1) @ projector.stacked(), after
    )

"""Features reproduce the model's own scores, and reading them leaves no trace."""

import numpy as np
import pytest
import torch

from recbole_freqd.errors import ConfigError
from recbole_freqd.features import ADAPTERS, EmbeddingTables, extract_features, shared_features

every_model = pytest.mark.parametrize("name", ADAPTERS.names())


@pytest.fixture
def built(tiny_config):
    """A model on the tiny data, with the loaders it was made from."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, init_seed

    def build(name, **keys):
        config = tiny_config(name, **keys)
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        return get_model(name)(config, loaders[0]._dataset), loaders

    return build


def users_of(model):
    from recbole.data.interaction import Interaction

    return Interaction({model.USER_ID: torch.arange(model.n_users)})


@every_model
def test_dot_products_are_the_models_scores(built, name):
    model, _ = built(name)
    model.eval()
    user_emb, item_emb = extract_features(model, with_bias=True)
    scores = model.full_sort_predict(users_of(model)).view(model.n_users, -1)
    torch.testing.assert_close(user_emb @ item_emb.T, scores, rtol=1e-4, atol=1e-6)
    assert torch.equal((user_emb @ item_emb.T).topk(10).indices, scores.topk(10).indices)


@every_model
def test_extraction_has_no_gradient_and_leaves_flags_streams_and_caches_alone(built, name):
    model, _ = built(name)
    model.train()
    model.full_sort_predict(users_of(model))  # fills caches where there are any
    caches = {key: value for key, value in vars(model).items() if key.startswith("restore_")}
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    features = extract_features(model)
    assert model.training and all(module.training for module in model.modules())
    assert all(not tensor.requires_grad for tensor in features)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()
    assert all(vars(model)[key] is value for key, value in caches.items())


@every_model
def test_extraction_is_deterministic_fresh_and_a_copy(built, name):
    model, _ = built(name)
    model.full_sort_predict(users_of(model))
    before = extract_features(model)
    assert all(torch.equal(a, b) for a, b in zip(before, extract_features(model)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    after = extract_features(model)
    for old, new in zip(before, after):
        torch.testing.assert_close(new, 2 * old)  # no stale cache, and `before` did not move


@every_model
def test_features_shared_with_the_loss_are_computed_once_and_carry_its_graph(built, name):
    model, (train_data, *_) = built(name)
    calls, forward = [], model.forward
    model.forward = lambda *args: calls.append(args) or forward(*args)
    interaction = next(iter(train_data))
    with shared_features(model) as features:
        model.calculate_loss(interaction)
        user_emb, item_emb = features()
    assert len(calls) == 1
    assert user_emb.requires_grad and item_emb.requires_grad
    (user_emb.sum() + item_emb.sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_sharing_takes_its_recorder_away_again(built):
    model, _ = built("LightGCN")
    with shared_features(model):
        assert "forward" in vars(model)
    assert "forward" not in vars(model)


def test_a_subclass_may_score_otherwise_and_needs_an_adapter_of_its_own(built, monkeypatch):
    from recbole.model.general_recommender import BPR

    class OwnBPR(BPR):
        pass

    model, _ = built("BPR")
    model.__class__ = OwnBPR
    with pytest.raises(ConfigError, match="No features are known for model 'OwnBPR'"):
        extract_features(model)
    monkeypatch.setattr(ADAPTERS, "_entries", dict(ADAPTERS._entries))
    ADAPTERS.register("OwnBPR")(EmbeddingTables())
    assert extract_features(model)[0].shape == (31, 4)


def test_a_model_without_adapter_is_refused_with_the_list_of_those_that_have_one():
    with pytest.raises(
        ConfigError, match="No features are known for model 'Linear'.*BPR, LightGCN"
    ):
        extract_features(torch.nn.Linear(2, 2))


def test_an_adapter_is_registered_once():
    with pytest.raises(ConfigError, match="registered already"):
        ADAPTERS.register("bpr")(EmbeddingTables())

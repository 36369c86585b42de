"""Features reproduce the model's own scores, and reading them leaves no trace."""

import copy
import random
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.core.schema import read_keys
from recbole_freqd.features import (
    ADAPTERS,
    EmbeddingTables,
    FeatureAdapter,
    PropagatedEmbeddings,
    adapter_of,
    check_teacher,
    extract_features,
    registered_adapter,
    shared_features,
    student_adapter,
)
from recbole_freqd.features.scores import evaluating, inspecting, score_users

# One model or more of each family: (its keys, whether its scores are the sigmoid of the products).
SMALL_VAE = {"mlp_hidden_size": [6], "latent_dimension": 4}
SMALL_DMF = {
    "user_embedding_size": 4,
    "item_embedding_size": 4,
    "user_hidden_size_list": [4, 3],
    "item_hidden_size_list": [4, 3],
}
EXACT = {
    "BPR": ({}, False),
    "LightGCN": ({}, False),
    "SGL": ({}, False),
    "GCMC": ({"gcn_output_dim": 6}, False),
    "FISM": ({"alpha": 0.5}, False),
    "DMF": (SMALL_DMF, True),
    "MultiVAE": (SMALL_VAE, False),
    "DiffRec": ({"dims_dnn": [6], "sampling_steps": 2, "sampling_noise": True}, False),
    "LDiffRec": ({"in_dims": [6], "dims_dnn": [5]}, False),
    "NCEPLRec": ({"rank": 10}, False),
    "NeuMF": ({"mlp_train": False, "mf_embedding_size": 5}, True),
}
SPECTRAL = {
    "NeuMF": {"mf_embedding_size": 5, "mlp_embedding_size": 3, "mlp_hidden_size": [4]},
    "MacridVAE": {"kfac": 2, "encoder_hidden_size": [6]},
    "DiffRec": {"dims_dnn": [6], "mean_type": "eps"},
    "EASE": {},
    "ItemKNN": {"k": 5},
}
exact_model = pytest.mark.parametrize("name", EXACT)
spectral_model = pytest.mark.parametrize("name", SPECTRAL)
every_model = pytest.mark.parametrize(
    ("name", "keys"),
    [(name, keys) for name, (keys, _) in EXACT.items()] + list(SPECTRAL.items()),
    ids=[f"{name}-exact" for name in EXACT] + [f"{name}-spectral" for name in SPECTRAL],
)


@pytest.fixture
def stirred(built):
    """A built model whose weights are as large, and as far from zero, as trained ones."""

    def stirred(name, keys):
        model, loaders = built(name, **keys)
        stir(model)
        return model, loaders

    return stirred


def stir(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def all_scores(model):
    """(n_users, n_items) as the model gives them, its caches not believed."""
    with inspecting(model, adapter_of(model).caches):
        return score_users(model, torch.arange(model.n_users)).float()


def product(features):
    return features[0] @ features[1].T


def streams():
    states = torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist()
    return *states, np.random.get_state()[2], random.getstate()


# --- a teacher's features --------------------------------------------------------------------


@exact_model
def test_dot_products_are_the_models_scores(stirred, name, caplog):
    keys, sigmoid = EXACT[name]
    model, _ = stirred(name, keys)
    features, scores = extract_features(model), all_scores(model)[1:, 1:]
    assert "approximating" not in caplog.text
    assert [len(part) for part in features] == [model.n_users, model.n_items]
    products = product(features)[1:, 1:]
    ours = torch.sigmoid(products) if sigmoid else products
    assert scores.std() > 0.01 * scores.abs().max()  # else the test would show nothing
    close = {"rtol": 1e-4, "atol": 1e-5 * float(scores.abs().max())}
    torch.testing.assert_close(ours, scores, **close)
    # Of equal scores either may come first: what is compared are the scores of the ten best.
    chosen = scores.gather(1, products.topk(10).indices)
    torch.testing.assert_close(chosen, scores.topk(10).values, **close)


@exact_model
def test_without_biases_the_features_are_the_first_columns_of_those_with(stirred, name):
    model, _ = stirred(name, EXACT[name][0])
    bare, full = (extract_features(model, with_bias=with_bias) for with_bias in (False, True))
    biases = sum(bias is not None for bias in adapter_of(model).biases(model))
    for without, with_them in zip(bare, full):
        assert with_them.shape[1] == without.shape[1] + biases
        assert torch.equal(without, with_them[:, : without.shape[1]])


def test_biases_become_columns_beside_ones(stirred):
    model, _ = stirred("FISM", EXACT["FISM"][0])
    user_emb, item_emb = extract_features(model)
    assert torch.equal(user_emb[:, -2], model.user_bias) and torch.all(user_emb[:, -1] == 1)
    assert torch.all(item_emb[:, -2] == 1) and torch.equal(item_emb[:, -1], model.item_bias)
    model, _ = stirred("MultiVAE", SMALL_VAE)
    user_emb, item_emb = extract_features(model)
    assert torch.all(user_emb[:, -1] == 1)
    assert torch.equal(item_emb[:, -1], model.decoder[-1].bias)
    assert extract_features(model, with_bias=False)[0].shape[1] == SMALL_VAE["mlp_hidden_size"][-1]


@spectral_model
def test_scores_that_are_no_product_are_approximated_by_their_svd(stirred, name, caplog):
    caplog.set_level("INFO")
    model, _ = stirred(name, SPECTRAL[name])
    rank, scores = 3, all_scores(model)
    scores[0], scores[:, 0] = 0, 0
    user_emb, item_emb = features = extract_features(model, rank=rank)
    assert len(user_emb) == model.n_users and len(item_emb) == model.n_items
    assert user_emb.shape[1] == item_emb.shape[1] <= rank
    energies = torch.linalg.svdvals(scores.double()).square()
    missing = float((product(features) - scores).double().square().sum())
    assert missing <= 1.05**2 * float(energies[rank:].sum()) + 1e-6 * float(energies.sum())
    (said,) = re.findall(
        f"Features of {name}: truncated SVD of its scores, rank {user_emb.shape[1]}, "
        r"([\d.]+) % of their energy kept",
        caplog.text,
    )
    assert float(said) == pytest.approx(
        100 * float(energies[:rank].sum() / energies.sum()), abs=0.06
    )


@spectral_model
def test_without_a_rank_the_data_or_the_default_limits_it(stirred, name):
    model, _ = stirred(name, SPECTRAL[name])
    assert read_keys("teacher.yaml")["spectral_rank"].default > model.n_users - 1 == 30
    features, scores = extract_features(model), all_scores(model)
    assert features[0].shape[1] <= 30
    scores[0], scores[:, 0] = 0, 0
    torch.testing.assert_close(
        product(features), scores, rtol=1e-3, atol=1e-4 * float(scores.abs().max())
    )
    for side, emb in zip(("user", "item"), features):
        assert emb[0].abs().max() < 1e-4 * emb.abs().max(), side  # the padding


def test_the_default_rank_is_that_of_the_properties(built, monkeypatch):
    from recbole_freqd.features import extract

    keys = {"spectral_rank": SimpleNamespace(default=4)}
    monkeypatch.setattr(extract, "read_keys", lambda file: {"teacher.yaml": keys}[file])
    model, _ = built("EASE")
    assert [part.shape[1] for part in extract_features(model)] == [4, 4]
    assert [part.shape[1] for part in extract_features(model, rank=6)] == [6, 6]


def test_user_and_item_similarities_of_itemknn_are_multiplied_on_their_own_side(built):
    for method in ("user", "item"):
        model, _ = built("ItemKNN", k=5, knn_method=method)
        scores = all_scores(model)
        torch.testing.assert_close(product(extract_features(model)), scores, rtol=1e-3, atol=1e-3)


def test_the_two_forms_of_admmslim_are_read_each_in_its_own_way(built):
    for center in (True, False):
        model, _ = built("ADMMSLIM", center_columns=center)
        scores = all_scores(model)[1:, 1:]
        products = product(extract_features(model))[1:, 1:]
        torch.testing.assert_close(products, scores, rtol=1e-3, atol=1e-3)


def test_diffrec_is_exact_where_its_network_predicts_the_scores_themselves(built):
    for mean_type, exact in (("x0", True), ("eps", False)):
        model, _ = built("DiffRec", dims_dnn=[6], mean_type=mean_type)
        assert adapter_of(model).exact(model) is exact


def test_neumf_without_its_mlp_puts_its_weights_on_the_user_and_keeps_the_bias(stirred):
    model, _ = stirred("NeuMF", EXACT["NeuMF"][0])
    user_emb, item_emb = extract_features(model)
    weighted = model.user_mf_embedding.weight * model.predict_layer.weight
    assert torch.equal(user_emb[:, :-1], weighted) and torch.all(user_emb[:, -1] == 1)
    assert torch.equal(item_emb[:, :-1], model.item_mf_embedding.weight)
    assert torch.all(item_emb[:, -1] == model.predict_layer.bias) and model.predict_layer.bias != 0


def test_a_user_without_history_has_a_finite_row_in_fism(stirred):
    model, _ = stirred("FISM", EXACT["FISM"][0])
    model.history_lens[4], model.history_item_matrix[4], model.mask_mat[4] = 0, 0, 0
    user_emb, _ = extract_features(model, with_bias=False)
    assert torch.isfinite(user_emb).all() and not user_emb[4].any() and user_emb[5].any()


# --- nothing is left behind ------------------------------------------------------------------


@every_model
def test_extraction_leaves_flags_attributes_weights_and_streams_as_they_were(stirred, name, keys):
    model, _ = stirred(name, keys)
    score_users(model, torch.arange(4))  # fills caches where there are any
    for place, module in enumerate(model.modules()):
        module.training = place % 3 != 1
    flags = [module.training for module in model.modules()]
    attributes, weights, before = dict(vars(model)), copy.deepcopy(model.state_dict()), streams()
    features = extract_features(model)
    assert streams() == before
    assert [module.training for module in model.modules()] == flags
    assert vars(model).keys() == attributes.keys()
    assert all(vars(model)[key] is value for key, value in attributes.items())
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not any(part.requires_grad for part in features)
    assert all(parameter.requires_grad for parameter in model.parameters())


@every_model
def test_extraction_is_deterministic_and_a_copy(stirred, name, keys):
    model, _ = stirred(name, keys)
    torch.manual_seed(1)
    one = extract_features(model)
    torch.manual_seed(2)
    np.random.seed(2)
    two = extract_features(model)
    assert all(torch.equal(a, b) for a, b in zip(one, two))
    kept = [part.clone() for part in one]
    stir(model)
    assert all(torch.equal(a, b) for a, b in zip(one, kept))


CACHING = {
    "LightGCN": ("restore_user_e", "restore_item_e"),
    "SGL": ("restore_user_e", "restore_item_e"),
    "DMF": ("i_embedding",),
}


@pytest.mark.parametrize("name", CACHING)
def test_a_cache_of_earlier_weights_never_leaks_into_the_features(stirred, name):
    model, _ = stirred(name, EXACT[name][0])
    with torch.no_grad():
        score_users(model, torch.arange(4))
    assert all(getattr(model, key) is not None for key in CACHING[name])
    earlier = extract_features(model)
    stir(model, seed=1)
    stale = extract_features(model)
    for key in CACHING[name]:
        assert getattr(model, key) is not None  # left in place, for what it is worth
        setattr(model, key, None)
    fresh = extract_features(model)
    for old, of_stale, of_fresh in zip(earlier, stale, fresh):
        assert torch.equal(of_stale, of_fresh) and not torch.allclose(of_stale, old)


def test_a_stale_cache_does_not_decide_whether_features_rank_as_the_model_does(stirred, caplog):
    """With the cache believed, the scores would be of other weights than the features."""
    model, _ = stirred("LightGCN", {})
    score_users(model, torch.arange(4))
    stir(model, seed=1)
    assert student_adapter(model) is ADAPTERS.get("LightGCN")
    extract_features(model)
    assert "approximating" not in caplog.text


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BPR", "LightGCN", "NCEPLRec", "MultiVAE"])
def test_a_rank_for_exact_features_is_refused(built, name):
    model, _ = built(name, **EXACT[name][0])
    message = f"teacher.spectral_rank: got 8, but the features of {name} are exact.*Remove it"
    for refuse in (lambda: extract_features(model, rank=8), lambda: check_teacher(model, 8)):
        with pytest.raises(ConfigError, match=message):
            refuse()
    check_teacher(model, None)


def test_a_rank_above_what_the_data_has_is_refused(built):
    model, _ = built("EASE")
    message = "teacher.spectral_rank: got 31; allowed: at most 30, the smaller number of users and"
    for refuse in (lambda: extract_features(model, rank=31), lambda: check_teacher(model, 31)):
        with pytest.raises(ConfigError, match=message):
            refuse()
    check_teacher(model, 30)
    assert extract_features(model, rank=30)[0].shape[1] <= 30


def broken(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[..., :1] = float("nan")


@pytest.mark.parametrize("name", ["NeuMF", "MacridVAE"])
def test_scores_that_are_nan_are_refused(built, name):
    model, _ = built(name, **SPECTRAL[name])
    broken(model)
    with pytest.raises(
        TeacherError, match=f"{name} cannot teach: the scores hold NaN.*Train it again"
    ):
        extract_features(model, rank=4)


def test_a_product_of_factors_that_is_nan_is_refused(built):
    model, _ = built("EASE")
    model.item_similarity[3, 4] = np.nan
    with pytest.raises(TeacherError, match="EASE cannot teach: the scores hold NaN"):
        extract_features(model)


@pytest.mark.parametrize("name", ["BPR", "LightGCN"])
def test_exact_features_that_are_nan_are_refused_too(built, name):
    model, _ = built(name)
    broken(model)
    with pytest.raises(TeacherError, match="NaN"):
        extract_features(model)


def test_a_missing_package_is_named_with_the_extra_that_installs_it(host, monkeypatch):
    from recbole.model.general_recommender import NCL

    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        ConfigError, match=r'NCL needs the package faiss.*pip install "recbole_freqd\[ncl\]"'
    ):
        registered_adapter(NCL)


def test_more_clusters_than_entities_are_refused_before_ncl_fails_on_them():
    sizes = {"n_users": 31, "n_items": 41}
    ADAPTERS.get("NCL").check(SimpleNamespace(k=31, **sizes))
    with pytest.raises(ConfigError, match="num_clusters: got 32; allowed for NCL.*at most 31"):
        ADAPTERS.get("NCL").check(SimpleNamespace(k=32, **sizes))


def test_ldiffrec_with_categories_is_a_teacher_by_its_scores_and_no_student(host):
    adapter, categories = ADAPTERS.get("LDiffRec"), SimpleNamespace(n_cate=2)
    assert not adapter.exact(categories)
    with pytest.raises(ConfigError, match="n_cate: got 2; allowed for LDiffRec as a student: 1"):
        adapter.rows(categories)


def test_an_adapter_is_registered_once():
    with pytest.raises(ConfigError, match="'bpr' is registered already"):
        ADAPTERS.register("bpr")(EmbeddingTables())


def test_an_adapter_says_what_it_must_be_able_to_do():
    with pytest.raises(NotImplementedError):
        FeatureAdapter().rows(torch.nn.Linear(1, 1))


# --- a student's features --------------------------------------------------------------------


def first_batch(loaders):
    return next(iter(loaders[0]))


def calls_of(model, name):
    """What ``model.<name>`` returns from now on, call by call."""
    results, original = [], getattr(model, name)

    def recorded(*args, **kwargs):
        results.append(original(*args, **kwargs))
        return results[-1]

    model.__dict__[name] = recorded
    return results


def sharing(model, loaders):
    """The features of one step, all rows of them, and the loss of it."""
    with shared_features(model, adapter_of(model)) as features:
        loss = model.calculate_loss(first_batch(loaders))
        rows = features()
        tables = rows.user(torch.arange(model.n_users)), rows.item(torch.arange(model.n_items))
    return tables, loss


def test_lightgcn_propagates_once_and_its_features_carry_the_losses_graph(stirred):
    model, loaders = stirred("LightGCN", {})
    calls = calls_of(model, "forward")
    tables, _ = sharing(model.train(), loaders)
    assert len(calls) == 1
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(tables, calls[0]))
    (tables[0].sum() + tables[1].sum()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_whole_graph_of_sgl_is_taken_and_not_its_views(stirred):
    model, loaders = stirred("SGL", {"drop_ratio": 0.5})
    calls = calls_of(model.train(), "forward")
    tables, _ = sharing(model, loaders)
    assert len(calls) == 3  # whole graph and two views, none for us
    whole = type(model).forward(model, model.train_graph)
    for side, view in enumerate(tables):
        assert torch.equal(view, whole[side])
        assert not torch.equal(view, calls[1][side]) and not torch.equal(view, calls[2][side])


def test_gcmc_encodes_once_and_its_features_are_those_the_loss_has_seen(stirred):
    """Dropout is on: a second pass of the encoder would give others."""
    model, loaders = stirred("GCMC", {**EXACT["GCMC"][0], "dropout_prob": 0.5})
    model.train()
    seen = []
    handle = model.GcEncoder.register_forward_hook(lambda *args: seen.append(args[-1]))
    (user_emb, item_emb), loss = sharing(model, loaders)
    handle.remove()
    assert len(seen) == 1
    logits = model.BiDecoder(*seen[0], torch.arange(model.n_users))[:, 1]
    torch.testing.assert_close(
        user_emb @ item_emb.T, logits.view(model.n_users, -1), rtol=1e-4, atol=1e-7
    )
    (user_emb.sum() + item_emb.sum() + loss).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


class Triple(torch.nn.Module):
    """As NCL: ``forward()`` returns users, items and the list of its layers."""

    n_users, n_items = 3, 2

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(10.0).view(5, 2))
        self.calls = 0

    def forward(self):
        self.calls += 1
        users, items = (self.weight * self.calls).split([3, 2])
        return users, items, [self.weight, self.weight]

    def calculate_loss(self, interaction):
        return self.forward()[0].sum()


@pytest.mark.parametrize("name", ["NCL", "LightGCN"])
def test_what_a_forward_returns_beyond_users_and_items_is_ignored(name):
    model = Triple()
    with shared_features(model, ADAPTERS.get(name)) as features:
        model.calculate_loss(None)
        rows = features()
    assert model.calls == 1
    assert torch.equal(rows.user(torch.tensor([2])), model.weight[2:3])
    assert torch.equal(rows.item(torch.tensor([1])), model.weight[4:5])


def test_a_loss_that_propagates_nothing_is_no_obstacle():
    model = Triple()
    model.calculate_loss = lambda _: model.weight.sum()
    with shared_features(model, PropagatedEmbeddings()) as features:
        model.calculate_loss(None)
        rows = features()
    assert model.calls == 1 and torch.equal(rows.user(torch.tensor([2])), model.weight[2:3])


@pytest.mark.parametrize("fails", [False, True])
def test_the_recorder_is_taken_away_again_and_an_own_override_put_back(fails):
    for override in (None, lambda: None):
        model = Triple()
        if override:
            model.forward = override
        try:
            with shared_features(model, PropagatedEmbeddings()):
                assert vars(model)["forward"] is not override
                assert 1 / (not fails)
        except ZeroDivisionError:
            assert fails
        assert vars(model).get("forward") is override
    assert model.training


READ_AFTERWARDS = {
    "MacridVAE": {**SPECTRAL["MacridVAE"], "dropout_prob": 0.5},
    "MultiVAE": {**SMALL_VAE, "dropout_prob": 0.5},
    "DiffRec": EXACT["DiffRec"][0],
    "LDiffRec": EXACT["LDiffRec"][0],
    "NeuMF": {**SPECTRAL["NeuMF"], "dropout_prob": 0.5},
    "DMF": SMALL_DMF,
    "FISM": EXACT["FISM"][0],
}


@pytest.mark.parametrize(("name", "keys"), READ_AFTERWARDS.items(), ids=READ_AFTERWARDS)
def test_others_are_read_in_eval_mode_and_draw_no_random_number_of_the_students(
    stirred, name, keys
):
    model, loaders = stirred(name, keys)
    model.train()
    list(model.modules())[-1].training = False  # flags may differ
    flags, batch = [module.training for module in model.modules()], first_batch(loaders)
    inside, hooks = (
        [],
        [
            module.register_forward_hook(lambda module, *_: inside.append(module.training))
            for module in model.modules()
        ],
    )
    adapter = adapter_of(model)
    with shared_features(model, adapter) as features:
        loss = model.calculate_loss(batch)
        torch.manual_seed(0)
        before = streams()
        inside.clear()
        rows = features()
        user_rows = rows.user(torch.tensor([3, 1]))
        item_rows = rows.item(torch.tensor([3, 1, 2]))
        assert streams() == before
        assert [module.training for module in model.modules()] == flags
    for hook in hooks:
        hook.remove()
    assert not any(inside)
    assert [module.training for module in model.modules()] == flags
    assert len(user_rows) == 2 and len(item_rows) == 3
    assert user_rows.requires_grad and item_rows.requires_grad and loss.requires_grad
    with inspecting(model, adapter.caches):  # the stream starts from 0 here too
        rows = adapter.rows(model)
        torch.testing.assert_close(user_rows, rows.user(torch.tensor([3, 1])))
        torch.testing.assert_close(item_rows, rows.item(torch.tensor([3, 1, 2])))


@pytest.mark.parametrize("name", ["MacridVAE", "MultiVAE", "DiffRec"])
def test_distilling_leaves_the_students_own_loss_as_it_would_have_been(stirred, name):
    losses = []
    for distilled in (False, True):
        model, loaders = stirred(name, READ_AFTERWARDS[name])
        model.train()
        torch.manual_seed(7)
        batches = list(loaders[0])
        torch.manual_seed(7)
        for batch in batches:
            with shared_features(model, adapter_of(model)) as features:
                losses.append(float(model.calculate_loss(batch).detach()))
                if distilled:
                    features().user(torch.tensor([1, 2]))
    half = len(losses) // 2
    assert half >= 1 and losses[:half] == losses[half:]


def test_rows_are_encoded_for_the_users_asked_for_only(stirred):
    model, _ = stirred("MultiVAE", SMALL_VAE)
    asked, get_rating_matrix = [], model.get_rating_matrix
    model.get_rating_matrix = lambda users: asked.append(users.tolist()) or get_rating_matrix(users)
    adapter_of(model).rows(model).user(torch.tensor([5, 2]))
    assert asked == [[5, 2]]


@pytest.mark.parametrize("name", ["MultiVAE", "DiffRec", "LDiffRec"])
def test_users_are_encoded_without_making_their_scores(built, name):
    model, _ = built(name, **(SMALL_VAE if name == "MultiVAE" else EXACT[name][0]))
    adapter, made = adapter_of(model), []
    layer = adapter._layer(model)
    layer.register_forward_hook(lambda *_: made.append(1))
    with evaluating(model):
        adapter.rows(model).user(torch.tensor([1, 2]))
    assert len(made) == adapter.calls(model) - 1  # earlier steps of a diffusion need theirs
    assert len(layer._forward_pre_hooks) == 0

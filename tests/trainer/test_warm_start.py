"""Students that start warm: their scores against dense oracles, or the reason why they cannot."""

import numpy as np
import pytest
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.features import ADAPTERS, FeatureAdapter, StudentRanker, adapter_of
from recbole_freqd.features.approximation import approximate
from recbole_freqd.features.scores import ModelRanker
from recbole_freqd.features.warm import PROPAGATED, TABLES
from recbole_freqd.trainer.warm_start import check_warm, warm_start

WIDTH = 4
KEYS = {
    "NeuMF": {"mf_embedding_size": WIDTH, "mlp_train": False},
    "NCL": {"num_clusters": 5, "n_layers": 2},
    "SGL": {"n_layers": 2},
}
STUDENTS = [name for name in ADAPTERS.names() if ADAPTERS.get(name).student is not None]
CAN = {"BPR", "LINE", "ENMF", "NeuMF", "SimpleX", "CDAE", "LightGCN", "SGL", "NCL", "FISM"}
EXACT = {"BPR", "LINE", "ENMF", "NeuMF", "LightGCN", "SGL", "NCL"}


def every(names):
    return pytest.mark.parametrize("name", sorted(names))


def features_of(n_users, n_items, width=9, seed=0):
    """A teacher with a spectrum that falls, and with popular items."""
    generator = torch.Generator().manual_seed(seed)
    user, item = (torch.randn(n, width, generator=generator) for n in (n_users, n_items))
    user[:, 0] += 2
    return user, item * 0.7 ** torch.arange(width)


def make(built, name, **keys):
    if name == "NCL":
        pytest.importorskip("faiss")
    model, loaders = built(name, **{"embedding_size": WIDTH, **KEYS.get(name, {}), **keys})
    teacher = features_of(model.n_users, model.n_items)
    return model, adapter_of(model), teacher, loaders


def counted(values):
    return values[1:, 1:]


def scores_of(model, adapter):
    return counted(StudentRanker(model, adapter).block(torch.arange(model.n_users)).double())


def truncated(scores, rank):
    left, sigma, right = torch.linalg.svd(scores.double(), full_matrices=False)
    return (left[:, :rank] * sigma[:rank]) @ right[:rank]


def relative(ours, wanted):
    return float((ours - wanted).norm() / wanted.norm())


# --- who can ---------------------------------------------------------------------------------


def test_it_is_said_of_every_student_whether_it_can_start_warm():
    assert len(STUDENTS) == 25
    for name in STUDENTS:
        by_default = name in CAN - {"NeuMF"}  # which can with mlp_train: False only
        assert (ADAPTERS.get(name).warm in (TABLES, PROPAGATED)) == by_default, name
        assert ADAPTERS.get(name).warm != FeatureAdapter.warm, name


@pytest.mark.parametrize(
    ("name", "keys", "reason"),
    [
        ("NeuMF", {"mlp_train": True}, "mlp_train"),
        ("SimpleX", {"aggregator": "user_attention"}, "aggregator"),
        ("SimpleX", {"gamma": 0.0}, "gamma"),
        ("CDAE", {"out_activation": "relu"}, "out_activation"),
    ],
)
def test_keys_that_stand_in_the_way_are_named(name, keys, reason, built):
    model, adapter, *_ = make(built, name, **keys)
    with pytest.raises(ConfigError, match=f"{name} cannot start warm: .*{reason}"):
        check_warm(model, adapter)


@every(STUDENTS)
def test_a_student_starts_warm_or_the_error_names_the_reason(name, built):
    model, adapter, teacher, _ = make(built, name)
    if name not in CAN:
        with pytest.raises(ConfigError) as caught:
            warm_start(model, adapter, FeatureRanker(*teacher))
        assert adapter.warm_by(model) in str(caught.value)
        assert "warm_start: none" in str(caught.value)
        return
    before = scores_of(model, adapter)
    done = warm_start(model, adapter, FeatureRanker(*teacher))
    scores, taught = scores_of(model, adapter), counted(teacher[0] @ teacher[1].T).double()
    rank = done.rank
    wanted = truncated(taught, rank)
    assert done.rank == WIDTH - adapter.warm_spare and done.width == WIDTH
    assert rank_correlation(scores, wanted) > (0.999 if name in EXACT else 0.9)
    assert rank_correlation(before, wanted) < 0.5  # so that this can fail
    if name in EXACT:
        assert relative(scores, wanted) < 1e-4


def rank_correlation(ours, wanted):
    """Mean over the users of Spearman's."""
    ranks = [values.argsort(1).argsort(1).double() for values in (ours, wanted)]
    centred = [each - each.mean(1, keepdim=True) for each in ranks]
    norms = [each.norm(dim=1) for each in centred]
    return float(((centred[0] * centred[1]).sum(1) / (norms[0] * norms[1])).mean())


# --- tables ----------------------------------------------------------------------------------


def test_a_warm_bpr_scores_as_the_truncated_svd_of_its_teacher(built):
    model, adapter, teacher, _ = make(built, "BPR")
    done = warm_start(model, adapter, FeatureRanker(*teacher))
    taught = counted(teacher[0] @ teacher[1].T).double()
    wanted = truncated(taught, WIDTH)
    torch.testing.assert_close(scores_of(model, adapter), wanted, atol=1e-4, rtol=1e-4)
    share = 1 - float((taught - wanted).square().sum() / taught.square().sum())
    assert done.share == pytest.approx(share, abs=1e-6) and done.way == TABLES


def test_a_teacher_of_scores_only_starts_a_student_as_well(built):
    model, adapter, *_ = make(built, "BPR")
    other, *_ = make(built, "NeuMF", mlp_train=True, mlp_hidden_size=[8])
    ranker = ModelRanker(other, pairs_by="forward")
    done = warm_start(model, adapter, ranker)
    taught = counted(ranker.block(torch.arange(model.n_users)).double())
    best = (taught - truncated(taught, WIDTH)).norm()
    assert (taught - scores_of(model, adapter)).norm() <= 1.05 * best + 1e-5 * taught.norm()
    assert done.rank <= WIDTH


def test_columns_beyond_the_rank_padding_and_strangers_keep_their_first_values(built):
    model, adapter, _, _ = make(built, "BPR")
    teacher = features_of(model.n_users, model.n_items, width=2)
    before = [table.weight.detach().clone() for table in tables(model)]
    known = np.ones(model.n_users, bool), np.ones(model.n_items, bool)
    known[0][[0, 5]] = known[1][[0, 6, 7]] = False
    done = warm_start(model, adapter, FeatureRanker(*teacher), known)
    assert (done.rank, done.width) == (2, WIDTH)
    for table, was, mask in zip(tables(model), before, known):
        assert torch.equal(table.weight[:, 2:], was[:, 2:])
        assert torch.equal(table.weight[~mask], was[~mask])
        assert (table.weight[mask][:, :2] != was[mask][:, :2]).all()


def tables(model):
    return model.user_embedding, model.item_embedding


@pytest.mark.parametrize("aggregator", ["mean", "self_attention"])
def test_simplex_ranks_exactly_as_the_approximation_of_one_column_less(aggregator, built):
    model, adapter, teacher, _ = make(built, "SimpleX", aggregator=aggregator)
    warm_start(model, adapter, FeatureRanker(*teacher))
    wanted = truncated(counted(teacher[0] @ teacher[1].T), WIDTH - 1)
    cosines = scores_of(model, adapter)
    ratio = cosines / wanted  # of a user it is one and the same for all items
    spread = (ratio - ratio.median(1, keepdim=True).values).abs() * wanted.abs()
    assert (ratio.median(1).values > 0).all() and float(spread.max()) < 1e-5


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_cdae_scores_as_the_approximation_beside_the_means_of_the_items(activation, built):
    model, adapter, teacher, _ = make(built, "CDAE", hid_activation=activation)
    warm_start(model, adapter, FeatureRanker(*teacher))
    taught = counted(teacher[0] @ teacher[1].T).double()
    mean = taught.mean(0, keepdim=True)
    wanted = mean + truncated(taught - mean, WIDTH)
    torch.testing.assert_close(scores_of(model, adapter), wanted, atol=1e-4, rtol=1e-4)


# --- propagation -----------------------------------------------------------------------------


def propagation_of(model, read):
    """P as a dense matrix: the features of one column, from tables that are unit vectors."""
    columns = []
    weights = [table.weight for table in tables(model)]
    kept = [weight.detach().clone() for weight in weights]
    for place in range(model.n_users + model.n_items):
        one = torch.zeros(model.n_users + model.n_items, WIDTH)
        one[place] = 1
        with torch.no_grad():
            for weight, part in zip(weights, one.split([model.n_users, model.n_items])):
                weight.copy_(part)
            columns.append(torch.cat(read(model))[:, 0].double())
    with torch.no_grad():
        for weight, was in zip(weights, kept):
            weight.copy_(was)
    return torch.stack(columns, dim=1)


def light_gcn(model):
    return model.forward()[:2]


@pytest.mark.parametrize("layers", [0, 2, 4])
def test_a_warm_lightgcn_of_even_layers_scores_as_the_truncated_svd(layers, built):
    model, adapter, teacher, _ = make(built, "LightGCN", n_layers=layers)
    done = warm_start(model, adapter, FeatureRanker(*teacher))
    wanted = truncated(counted(teacher[0] @ teacher[1].T), WIDTH)
    torch.testing.assert_close(scores_of(model, adapter), wanted, atol=1e-4, rtol=1e-4)
    assert done.way == PROPAGATED and done.residual < 1e-4 and done.steps < 60


@pytest.mark.parametrize("layers", [1, 3])
def test_a_warm_lightgcn_of_odd_layers_is_the_dense_least_squares_optimum(layers, built):
    model, adapter, teacher, _ = make(built, "LightGCN", n_layers=layers)
    dense = propagation_of(model, light_gcn)[:, 1:]
    found = approximate(FeatureRanker(*teacher), WIDTH)
    wanted = torch.cat(found.features).double()
    rows = torch.ones(len(wanted), dtype=bool)
    rows[[0, model.n_users]] = False
    free = [place for place in range(len(wanted)) if rows[place]]
    matrix = dense[rows][:, [place - 1 for place in free]]
    assert torch.linalg.matrix_rank(matrix, rtol=1e-5) < len(free)  # singular: bipartite
    best = matrix @ torch.linalg.lstsq(matrix, wanted[rows], rcond=1e-5, driver="gelsd").solution
    done = warm_start(model, adapter, FeatureRanker(*teacher))
    with torch.no_grad():
        made = torch.cat(model.forward()).double()[rows]
    assert relative(made, best) < 1e-2
    assert (made - wanted[rows]).norm() <= 1.001 * (best - wanted[rows]).norm()
    users = made[: model.n_users - 1] @ made[model.n_users - 1 :].T
    target = counted(found.user_emb @ found.item_emb.T).double()
    assert done.residual == pytest.approx(relative(users, target), rel=1e-3)
    assert max(float(table.weight.detach().abs().max()) for table in tables(model)) < 20


@every(["LightGCN", "SGL"])
def test_strangers_of_a_propagating_student_keep_their_tables_and_the_others_fit(name, built):
    model, adapter, teacher, _ = make(built, name)
    before = [table.weight.detach().clone() for table in tables(model)]
    known = np.ones(model.n_users, bool), np.ones(model.n_items, bool)
    known[0][[0, 5]] = known[1][[0, 6, 7]] = False
    done = warm_start(model, adapter, FeatureRanker(*teacher), known)
    for table, was, mask in zip(tables(model), before, known):
        assert torch.equal(table.weight[~mask], was[~mask])
    places = [torch.from_numpy(mask)[1:] for mask in known]
    taught = counted(teacher[0] @ teacher[1].T).double()[places[0]][:, places[1]]
    ours = scores_of(model, adapter)[places[0]][:, places[1]]
    assert relative(ours, truncated(taught, WIDTH)) < 1e-4 and done.residual < 1e-4


def test_columns_beyond_the_rank_are_left_to_a_propagating_student(built):
    model, adapter, _, _ = make(built, "LightGCN")
    teacher = features_of(model.n_users, model.n_items, width=2)
    before = [table.weight.detach().clone() for table in tables(model)]
    assert warm_start(model, adapter, FeatureRanker(*teacher)).residual < 1e-4
    for table, was in zip(tables(model), before):
        assert torch.equal(table.weight[:, 2:], was[:, 2:])


def test_fism_has_biases_of_both_sides_and_users_by_least_squares(built):
    model, adapter, teacher, _ = make(built, "FISM")
    padding = model.item_src_embedding.weight[0].detach().clone()
    warm_start(model, adapter, FeatureRanker(*teacher))
    taught = counted(teacher[0] @ teacher[1].T).double()
    centred = taught - taught.mean(0, keepdim=True)
    means = taught - (centred - centred.mean(1, keepdim=True))
    # Each user's history says more than four numbers here: any user features can be had.
    wanted = means + truncated(taught - means, WIDTH)
    assert relative(scores_of(model, adapter), wanted) < 0.02
    torch.testing.assert_close(model.item_bias[1:].double(), taught.mean(0), atol=1e-4, rtol=1e-4)
    assert torch.equal(model.item_src_embedding.weight[0], padding)


def test_features_that_are_not_linear_are_found_out(built, monkeypatch):
    model, adapter, teacher, _ = make(built, "LightGCN")
    plain = model.forward
    monkeypatch.setattr(model, "forward", lambda: tuple(part.tanh() for part in plain()))
    with torch.no_grad():
        for table in tables(model):
            table.weight.fill_(1.0)
    with pytest.raises(ConfigError, match="no linear function"):
        warm_start(model, adapter, FeatureRanker(*teacher))
    assert all((table.weight == 1).all() for table in tables(model))


def test_a_model_that_says_its_features_itself_is_asked_for_an_adapter(built):
    model, _, teacher, _ = make(built, "BPR")
    model.user_item_features = lambda: tuple(table.weight for table in tables(model))
    with pytest.raises(ConfigError, match="register an adapter"):
        warm_start(model, adapter_of(model), FeatureRanker(*teacher))


class Turned(GeneralRecommender):
    """A model of one's own: linear in its tables, across rows and across columns."""

    input_type = InputType.PAIRWISE

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.user_embedding = torch.nn.Embedding(self.n_users, WIDTH)
        self.item_embedding = torch.nn.Embedding(self.n_items, WIDTH)
        turn = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(9))
        self.register_buffer("turn", torch.eye(WIDTH) + 0.2 * turn)

    def forward(self):
        users, items = self.user_embedding.weight, self.item_embedding.weight
        both = torch.cat([users + 0.3 * users.roll(1, 0), items + 0.1 * users.mean(0)])
        return (both @ self.turn).split([self.n_users, self.n_items])

    def full_sort_predict(self, interaction):
        users, items = self.forward()
        return (users[interaction[self.USER_ID]] @ items.T).view(-1)


def test_a_model_of_ones_own_starts_warm_if_it_is_linear_in_its_tables(built):
    model, adapter, teacher, _ = make(built, Turned)
    assert type(adapter).__name__ == "PropagatedEmbeddings"
    done = warm_start(model, adapter, FeatureRanker(*teacher))
    wanted = truncated(counted(teacher[0] @ teacher[1].T), WIDTH)
    assert relative(scores_of(model, adapter), wanted) < 1e-4 and done.residual < 1e-4


# --- what it leaves alone --------------------------------------------------------------------


@every(["BPR", "LightGCN", "FISM", "SimpleX", "CDAE"])
def test_a_warm_student_is_as_before_but_for_its_weights_and_its_caches(name, built):
    model, adapter, teacher, loaders = make(built, name)
    if name == "LightGCN":
        with torch.no_grad():
            model.restore_user_e, model.restore_item_e = model.forward()
    model.train()
    streams = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    warm_start(model, adapter, FeatureRanker(*teacher))
    assert torch.equal(torch.random.get_rng_state(), streams[0])
    assert np.random.get_state()[1].tolist() == streams[1]
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(p.grad is None and p.isfinite().all() for p in model.parameters())
    if name == "LightGCN":
        assert model.restore_user_e is None
    model.calculate_loss(next(iter(loaders[0]))).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@every(sorted(CAN - {"NCL"}))
def test_the_same_start_twice_gives_the_same_bits(name, built):
    found = []
    for _ in range(2):
        model, adapter, teacher, _ = make(built, name)
        warm_start(model, adapter, FeatureRanker(*teacher))
        found.append([values.detach().clone() for values in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found))


def test_the_log_says_what_share_is_kept_and_what_is_lost_on_the_way(built, caplog):
    model, adapter, teacher, _ = make(built, "LightGCN")
    with caplog.at_level("INFO", "recbole_freqd"):
        done = warm_start(model, adapter, FeatureRanker(*teacher))
    text = caplog.text
    assert f"{100 * done.share:.1f} % of the energy" in text and "4 of its 4 dimensions" in text
    assert f"in {done.steps} steps" in text

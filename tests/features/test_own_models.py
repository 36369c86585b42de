"""Models of your own: found by a method, by conventions or by an adapter; else taught by scores.

The classes are at the top of the module, so that a checkpoint can refer to them.
"""

import importlib
import sys
import textwrap

import numpy as np
import pytest
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.general_recommender import BPR, EASE, LightGCN
from recbole.utils import InputType
from torch import nn
from torch.nn import functional as F

from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features import (
    ADAPTERS,
    EmbeddingTables,
    FeatureAdapter,
    PropagatedEmbeddings,
    adapter_of,
    check_teacher,
    extract_features,
    shared_features,
    student_adapter,
)
from recbole_freqd.features.closed_form import OnlyScores
from recbole_freqd.features.own import OwnMethod
from recbole_freqd.features.scores import ScoredUsers, inspecting, score_users
from recbole_freqd.teacher.recipe import recipe_config

# RecBole knows the defaults of its own models only: a subclass has to be told.
KEYS = {"own_width": 4, "n_layers": 2, "reg_weight": 1e-4, "require_pow": False}


class Pairwise(GeneralRecommender):
    """What the own models below have in common: scores of pairs, and BPR's loss of them."""

    input_type = InputType.PAIRWISE

    def tables(self, config):
        width = config["own_width"]
        pair = nn.Embedding(self.n_users, width), nn.Embedding(self.n_items, width)
        for table in pair:
            nn.init.normal_(table.weight, std=0.3)
        return pair

    def predict(self, interaction):
        return self.score(interaction[self.USER_ID], interaction[self.ITEM_ID])

    def calculate_loss(self, interaction):
        users = interaction[self.USER_ID]
        better = self.score(users, interaction[self.ITEM_ID])
        return -F.logsigmoid(better - self.score(users, interaction[self.NEG_ITEM_ID])).mean()


class ByMethod(Pairwise):
    """Says itself what its features are: the users' are scaled, and there is a bias."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.P, self.Q = self.tables(config)
        self.popularity = nn.Parameter(torch.linspace(-0.5, 0.5, self.n_items))

    def all_features(self):
        users = torch.cat([2 * self.P.weight, torch.ones(self.n_users, 1)], dim=1)
        return users, torch.cat([self.Q.weight, self.popularity[:, None]], dim=1)

    def user_item_features(self):
        return self.all_features()

    def score(self, users, items):
        user_emb, item_emb = self.all_features()
        return (user_emb[users] * item_emb[items]).sum(1)


class ByForward(Pairwise):
    """A graph model by convention: ``forward()`` gives all users and items; in training, dropout."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.P, self.Q = self.tables(config)
        self.register_buffer(
            "R", torch.from_numpy(dataset.inter_matrix(form="csr").toarray()).float()
        )

    def forward(self):
        self.last = 1.0 * F.dropout(self.P.weight, 0.1, self.training)
        return self.last + self.R @ self.Q.weight, self.Q.weight + self.R.T @ self.last

    def score(self, users, items):
        user_emb, item_emb = self.forward()
        return (user_emb[users] * item_emb[items]).sum(1)


class ByTables(Pairwise):
    """Tables named as RecBole names them; the score is their dot product, times two."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.user_embedding, self.item_embedding = self.tables(config)

    def forward(self, users, items):
        return 2 * (self.user_embedding(users) * self.item_embedding(items)).sum(1)

    score = forward


class Reversed(Pairwise):
    """Follows no convention; one dimension counts negatively. Its adapter is a few lines."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.P, self.Q = self.tables(config)

    def score(self, users, items):
        return (self.P(users) * self.Q(items)).sum(1) - 2 * self.P(users)[:, 0] * self.Q(items)[
            :, 0
        ]


class ReversedAdapter(FeatureAdapter):
    student = "`P` with its first dimension reversed, `Q`"

    def rows(self, model):
        signs = torch.ones(model.P.embedding_dim).index_fill(0, torch.tensor([0]), -1.0)
        return FeatureRows(lambda ids: model.P(ids) * signs, model.Q)


class OnlyScored(Pairwise):
    """A network over both tables, which have names of their own: only its scores are known."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.P, self.Q = self.tables(config)
        self.network = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))

    def score(self, users, items):
        return self.network(torch.cat([self.P(users), self.Q(items)], dim=1)).squeeze(1)


class SameAsBPR(BPR):
    """BPR with another loss: it scores as BPR does."""

    def calculate_loss(self, interaction):
        return (
            super().calculate_loss(interaction) + 0.01 * self.item_embedding.weight.square().mean()
        )


class Distance(BPR):
    """Inherits BPR's tables, but ranks by the distance between user and item."""

    def full_sort_predict(self, interaction):
        users = self.user_embedding(interaction[self.USER_ID])
        return -torch.cdist(users, self.item_embedding.weight).view(-1)

    def predict(self, interaction):
        users, items = self.forward(interaction[self.USER_ID], interaction[self.ITEM_ID])
        return -(users - items).norm(dim=1)


class CachedDistance(LightGCN):
    """Ranks by a distance, from the propagated embeddings that LightGCN keeps."""

    def full_sort_predict(self, interaction):
        super().full_sort_predict(interaction)  # fills what it keeps
        return -torch.cdist(
            self.restore_user_e[interaction[self.USER_ID]], self.restore_item_e
        ).view(-1)


class PopularEASE(EASE):
    """EASE, its scores multiplied by how popular the item is."""

    def full_sort_predict(self, interaction):
        popularity = torch.from_numpy(np.asarray(self.interaction_matrix.sum(0)).ravel()).float()
        scores = super().full_sort_predict(interaction).view(len(interaction), -1)
        return (scores * popularity).view(-1)


class SimGCL(LightGCN):
    """As RecBole-GNN's: the loss propagates once for itself, and twice more with noise."""

    def forward(self, perturbed=False):
        user_emb, item_emb = super().forward()
        if perturbed:
            user_emb, item_emb = (part + torch.rand_like(part) for part in (user_emb, item_emb))
        return user_emb, item_emb

    def calculate_loss(self, interaction):
        loss = super().calculate_loss(interaction)
        one, two = self.forward(perturbed=True), self.forward(perturbed=True)
        return loss + sum((a - b).square().mean() for a, b in zip(one, two))


KINDS = {
    ByMethod: OwnMethod,
    ByForward: PropagatedEmbeddings,
    ByTables: EmbeddingTables,
    Reversed: ReversedAdapter,
}
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """A registry that also knows Reversed, and forgets it afterwards."""
    monkeypatch.setattr(ADAPTERS, "_entries", dict(ADAPTERS._entries))
    ADAPTERS.register("Reversed")(ReversedAdapter())


@pytest.fixture
def distil(tiny_config, teacher_recipe):
    """A finished run of a student, and its trainer at ``.trainer``."""
    from recbole_freqd.jobs import run as runs

    def distil(model, teacher=teacher_recipe, **keys):
        return runs.run(tiny_config(model, trainer="FreqD", teacher=teacher, **{**KEYS, **keys}))

    return distil


@pytest.fixture
def trained(tiny_config):
    """The run of a model that RecBole trains without us."""
    from recbole_freqd.jobs import run as runs

    return lambda model, **keys: runs.run(tiny_config(model, epochs=1, **{**KEYS, **keys}))


def all_scores(model):
    with inspecting(model, adapter_of(model).caches):
        return score_users(model, torch.arange(model.n_users))


def without_padding(model):
    with inspecting(model, adapter_of(model).caches):
        return torch.cat(list(ScoredUsers(model).blocks()))


# --- how a model is read ---------------------------------------------------------------------


@every_kind
def test_the_features_of_an_own_model_reproduce_its_scores(built, kind, caplog):
    model, _ = built(kind, **KEYS)
    assert type(adapter_of(model)) is KINDS[kind]
    user_emb, item_emb = extract_features(model)
    scale = 2 if kind is ByTables else 1  # a factor is no other ranking
    torch.testing.assert_close(
        scale * user_emb @ item_emb.T, all_scores(model), rtol=1e-4, atol=1e-5
    )
    assert isinstance(student_adapter(model), KINDS[kind])
    assert "approximating" not in caplog.text


def test_its_own_method_goes_before_a_registered_adapter_and_that_before_conventions(built):
    class Both(ByTables):
        def user_item_features(self):
            return self.user_embedding.weight, self.item_embedding.weight

    model, _ = built(ByTables, **KEYS)
    assert type(adapter_of(model)) is EmbeddingTables
    ADAPTERS.register("ByTables")(ReversedAdapter())
    assert type(adapter_of(model)) is ReversedAdapter
    model.__class__ = Both
    assert type(adapter_of(model)) is OwnMethod


def test_the_nearest_ancestor_with_an_adapter_is_taken(built):
    class Grandchild(SameAsBPR):
        pass

    model, _ = built(Grandchild, **KEYS)
    assert adapter_of(model) is ADAPTERS.get("BPR")
    ADAPTERS.register("SameAsBPR")(ReversedAdapter())
    assert type(adapter_of(model)) is ReversedAdapter


def test_a_namesake_of_one_of_recboles_models_is_not_taken_for_it(built):
    for name in ("EASE", "LightGCN", "Random"):
        model, _ = built(ByMethod, **KEYS)
        model.__class__ = type(name, (ByTables,), {})
        assert type(adapter_of(model)) is OnlyScores
        model, _ = built(ByForward, **KEYS)
        model.__class__ = type(name, (ByForward,), {})
        assert type(adapter_of(model)) is PropagatedEmbeddings


def test_reading_an_own_model_leaves_no_trace(built):
    for kind in (*KINDS, OnlyScored):
        model, _ = built(kind, **KEYS)
        model.train()
        attributes, state = dict(vars(model)), torch.random.get_rng_state()
        extract_features(model)
        assert torch.equal(state, torch.random.get_rng_state())
        assert list(vars(model)) == list(attributes) and model.training
        assert all(vars(model)[name] is value for name, value in attributes.items())


def test_tables_of_other_sizes_or_kinds_are_not_taken_for_features(built):
    model, _ = built(ByTables, **KEYS)
    for strange in (nn.Embedding(3, 4), nn.Linear(4, model.n_users), None):
        model.user_embedding = strange
        assert type(adapter_of(model)) is OnlyScores


def test_a_forward_that_returns_something_else_is_not_taken_for_features(built):
    model, _ = built(ByForward, **KEYS)
    users, items = model.forward()
    for strange in (users, (users,), (items, users), (users[1:], items), (users, items[:, 0]), 3):
        model.forward = lambda strange=strange: strange
        assert type(adapter_of(model)) is OnlyScores


# --- a subclass of one of RecBole's ----------------------------------------------------------


def test_a_subclass_that_scores_the_same_is_read_as_its_parent(built, caplog):
    model, _ = built(SameAsBPR, **KEYS)
    user_emb, item_emb = extract_features(model)
    assert torch.equal(user_emb, model.user_embedding.weight)
    assert torch.equal(item_emb, model.item_embedding.weight)
    assert student_adapter(model) is ADAPTERS.get("BPR") and "approximating" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "parent"), [(Distance, "EmbeddingTables"), (CachedDistance, "PropagatedEmbeddings")]
)
def test_a_subclass_that_scores_otherwise_teaches_by_the_svd_of_its_scores_with_a_warning(
    built, kind, parent, caplog
):
    model, _ = built(kind, **KEYS)
    score_users(model, torch.arange(3))  # fills a cache, which is stale from here on
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    features, scores = extract_features(model), without_padding(model)
    torch.testing.assert_close(features[0] @ features[1].T, scores, rtol=1e-3, atol=1e-3)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"{kind.__name__} does not rank by the features of {parent}" in warning.getMessage()


def test_a_subclass_that_scores_otherwise_is_no_student_until_it_says_what_its_features_are(
    distil, tmp_path
):
    message = (
        "Distance cannot be a student yet: its features are not known, and its tables alone do not "
        r"rank as it does.*user_item_features\(\).*ADAPTERS.register\(\"Distance\"\)"
    )
    with pytest.raises(ConfigError, match=message):
        distil(Distance)
    assert not list(tmp_path.glob("saved/*.pth"))  # no teacher was trained for nothing
    ADAPTERS.register("Distance")(OnlyTables())
    assert distil(Distance).trainer.adapter is ADAPTERS.get("Distance")


class OnlyTables(EmbeddingTables):
    """The tables as a representation that is steered, although the score is no product of them."""

    def exact(self, model):
        return False


def test_a_rank_can_be_set_for_a_subclass_whose_scores_are_approximated(built):
    model, _ = built(Distance, **KEYS)
    check_teacher(model, 5)
    assert extract_features(model, rank=5)[0].shape[1] == 5


def test_a_subclass_of_a_closed_form_model_teaches_its_own_scores(built):
    model, _ = built(PopularEASE, reg_weight=10.0)
    features, scores = extract_features(model), without_padding(model)
    torch.testing.assert_close(features[0] @ features[1].T, scores, rtol=1e-3, atol=1e-2)


# --- only scores -----------------------------------------------------------------------------


def test_a_model_of_which_only_scores_are_known_teaches_by_their_svd(distil, trained, caplog):
    caplog.set_level("INFO")
    path = trained(OnlyScored).trainer.saved_model_file
    recipe = {"checkpoint": path, "trust_checkpoint": True, "spectral_rank": 5}
    teacher = distil("BPR", recipe).trainer.teacher
    assert [part.shape for part in teacher.features] == [(31, 5), (41, 5)]
    assert "Features of OnlyScored: truncated SVD of its scores, rank 5" in caplog.text
    assert "does not rank by" not in caplog.text  # nothing was promised, so nothing to warn of


def test_a_trained_model_whose_adapter_is_for_teachers_only_is_trained_as_long_as_is_said(
    tiny_config, teacher_recipe, built
):
    class ForTeachers(FeatureAdapter):
        def rows(self, model):
            return FeatureRows.of_tables(model.user_embedding.weight, model.item_embedding.weight)

    ADAPTERS.register("Distance")(ForTeachers())
    config = tiny_config(trainer="FreqD", teacher={**teacher_recipe, "model": Distance})
    assert recipe_config(config, {**config["teacher"], "epochs": 50})["epochs"] == 50
    with pytest.raises(ConfigError, match="Distance cannot be a student: its adapter, ForTeachers"):
        student_adapter(built(Distance, **KEYS)[0])


class Biased(ByTables):
    """Its tables rank as it does until the bias, which begins at zero, is trained."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.bias = nn.Parameter(torch.zeros(self.n_items))

    def score(self, users, items):
        return super().forward(users, items) + self.bias[items]


def test_a_student_whose_tables_rank_as_it_does_only_before_it_is_trained_is_refused(built):
    model, _ = built(Biased, **KEYS)
    with pytest.raises(ConfigError, match="Biased cannot be a student yet: .*its tables alone do"):
        student_adapter(model)
    assert not model.bias.any()
    assert student_adapter(built(ByTables, **KEYS)[0]).student


def test_what_is_never_trained_and_a_scale_leave_a_student_as_it_is(built):
    class Scaled(Biased):
        def __init__(self, config, dataset):
            super().__init__(config, dataset)
            self.bias.requires_grad_(False)
            self.scale = nn.Parameter(torch.full((1,), 0.07))

        def score(self, users, items):
            return super().score(users, items) * self.scale

    for _ in range(3):
        assert student_adapter(built(Scaled, **KEYS)[0]).student


def test_a_student_whose_method_does_not_rank_as_it_does_is_warned_of(built, caplog):
    class Other(ByMethod):
        def user_item_features(self):
            users, items = self.all_features()
            return users, items.flip(0)

    student_adapter(built(Other, **KEYS)[0])
    assert (
        "user_item_features() of Other returns features that do not rank as the model does"
        in caplog.text
    )


def test_a_model_of_which_only_scores_are_known_is_no_student(distil, tmp_path):
    message = r"OnlyScored cannot be a student yet: its features are not known. Give OnlyScored"
    with pytest.raises(ConfigError, match=message):
        distil(OnlyScored)
    assert not list(tmp_path.glob("saved/*.pth"))


# --- as student ------------------------------------------------------------------------------


@every_kind
def test_an_own_model_is_distilled_and_the_teacher_moves_it(distil, kind):
    alone, moved, again = (distil(kind, freqd_beta=beta) for beta in (0.0, 3.0, 3.0))
    assert isinstance(moved.trainer.adapter, KINDS[kind])
    assert set(moved.test_result) == set(alone.test_result) >= {"ndcg@10"}
    weights = [run.model.state_dict() for run in (alone, moved, again)]
    for name in (name for name in weights[0] if name != "R"):
        assert not torch.equal(weights[0][name], weights[1][name]), name
        assert torch.equal(weights[1][name], weights[2][name]), name
    assert np.isfinite(list(moved.trainer.train_loss_dict.values())).all()


def test_an_own_class_goes_through_the_run_function_with_checkpoints(
    host, tiny_keys, teacher_recipe
):
    from recbole_freqd import run_recbole_freqd

    keys = {
        **tiny_keys,
        **KEYS,
        "valid_metric": "NDCG@10",
        "trainer": "FreqD",
        "teacher": teacher_recipe,
    }
    result = run_recbole_freqd(ByMethod, "tiny", config_dict=keys, saved=True)
    assert set(result["test_result"]) == set(result["teacher_test_result"]) >= {"ndcg@10"}


def test_by_hand_freqdtrainer_takes_an_own_class_too(tiny_config, teacher_recipe):
    from recbole.data import create_dataset, data_preparation

    from recbole_freqd.trainer.distillation import FreqDTrainer

    config = tiny_config(ByMethod, **KEYS)
    config["teacher"] = teacher_recipe
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    trainer = FreqDTrainer(config, ByMethod(config, train_data._dataset))
    trainer.fit(train_data, valid_data)
    assert type(trainer.adapter) is OwnMethod and "ndcg@10" in trainer.evaluate(test_data)
    assert (
        trainer.distiller.losses["FreqD"].projectors["user"].weight_in.shape[1] == 5
    )  # with the bias


def test_the_features_of_a_method_are_read_in_eval_mode_and_carry_gradients(built):
    model, loaders = built(ByMethod, **KEYS)
    modes, method = [], model.user_item_features
    model.train()
    with shared_features(model, adapter_of(model)) as features:
        model.calculate_loss(next(iter(loaders[0])))
        model.user_item_features = lambda: modes.append(model.training) or method()
        rows = features()
        (rows.user(torch.tensor([2])).sum() + rows.item(torch.tensor([3])).sum()).backward()
    assert modes and not any(modes) and model.training
    assert model.P.weight.grad[2].tolist() == [2.0] * 4 and not model.P.weight.grad[3].any()
    assert model.popularity.grad.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("kind", [ByForward, SimGCL], ids=lambda kind: kind.__name__)
def test_a_graph_model_of_ones_own_is_read_after_its_loss_whatever_that_has_called(built, kind):
    """Without dropout and noise, and without a random number: its loss may propagate for other ends."""
    model, loaders = built(kind, **KEYS)
    adapter = adapter_of(model.train())
    with shared_features(model, adapter) as features:
        model.calculate_loss(next(iter(loaders[0])))
        state = torch.random.get_rng_state()
        rows = features()
        tables = rows.user(torch.arange(model.n_users)), rows.item(torch.arange(model.n_items))
        assert torch.equal(state, torch.random.get_rng_state())
    assert all(module.training for module in model.modules())
    for ours, in_eval_mode in zip(tables, model.eval().forward()):
        torch.testing.assert_close(ours, in_eval_mode)
        assert ours.requires_grad


def test_an_adapter_registered_for_the_class_itself_may_share_the_losses_propagation(built):
    ADAPTERS.register("ByForward")(PropagatedEmbeddings())
    model, loaders = built(ByForward, **KEYS)
    adapter, calls, forward = adapter_of(model), [], model.forward
    model.forward = lambda: calls.append(forward()) or calls[-1]
    with shared_features(model, adapter) as features:
        model.calculate_loss(next(iter(loaders[0])))
        rows = features()
    assert len(calls) == 2  # its loss scores twice, and that is all
    assert torch.equal(rows.user(torch.arange(model.n_users)), calls[1][0])


# --- the method's promises -------------------------------------------------------------------


def wrong(model, returned):
    model.user_item_features = lambda: returned
    return model


@pytest.fixture
def wrong_shapes(built):
    """What a method may wrongly return, and what the message says of it."""
    model, _ = built(ByMethod, **KEYS)
    users, items = (part.detach() for part in model.user_item_features())
    return model, {
        r"\(30, 5\), \(41, 5\)": (users[1:], items),
        r"\(31, 5\), \(40, 5\)": (users, items[1:]),
        r"\(41, 5\), \(31, 5\)": (items, users),
        r"\(31, 5\), \(41,\)": (users, items[:, 0]),
        r"\(31, 5\), \(41, 5\), \(41, 5\)": (users, items, items),
        r"returned \(31, 5\);": users,
        r"\(31, 5\), ndarray": (users, items.numpy()),
        "NoneType": None,
    }


def test_a_method_that_returns_wrong_shapes_is_refused_with_the_shapes_due(wrong_shapes):
    model, shapes = wrong_shapes
    for said, returned in shapes.items():
        message = rf"ByMethod.user_item_features\(\) returned .*{said.removeprefix('returned ')}"
        with pytest.raises(ConfigError, match=message) as caught:
            extract_features(wrong(model, returned))
        assert "allowed: two tensors with 31 and 41 rows" in str(caught.value)


class WrongShapes(ByMethod):
    """Forgets the padding."""

    def user_item_features(self):
        users, items = self.all_features()
        return users[1:], items[1:]


def test_a_student_whose_method_returns_wrong_shapes_is_refused(distil):
    with pytest.raises(ConfigError, match=r"user_item_features\(\) returned \(30, 5\), \(40, 5\)"):
        distil(WrongShapes)


def test_wrong_shapes_are_refused_before_a_teacher_is_trained(distil, built, tmp_path):
    with pytest.raises(ConfigError, match=r"user_item_features\(\) returned"):
        distil(WrongShapes)
    assert not list(tmp_path.glob("saved/*.pth"))
    model, _ = built(WrongShapes, **KEYS)
    with pytest.raises(ConfigError, match=r"user_item_features\(\) returned"):
        check_teacher(model, None)


# --- RecBole-GNN -----------------------------------------------------------------------------


def test_a_model_of_recbole_gnns_kind_is_found_through_its_lightgcn(built):
    model, _ = built(SimGCL, **KEYS)
    user_emb, item_emb = extract_features(model)
    torch.testing.assert_close(user_emb @ item_emb.T, all_scores(model))
    assert isinstance(student_adapter(model), PropagatedEmbeddings)


def test_a_student_of_recbole_gnns_kind_trains(distil):
    run = distil(SimGCL)
    assert "ndcg@10" in run.test_result and isinstance(run.trainer.adapter, PropagatedEmbeddings)


# --- as teacher: checkpoint and recipe -------------------------------------------------------


@every_kind
def test_a_checkpoint_of_an_own_class_teaches_where_it_is_trusted(distil, trained, kind):
    stock = trained(kind, own_width=6)
    path = stock.trainer.saved_model_file
    run = distil("BPR", {"checkpoint": path, "trust_checkpoint": True})
    teacher = run.trainer.teacher
    assert teacher.origin == "checkpoint" and teacher.config.model_class is kind
    for ours, own in zip(teacher.features, extract_features(stock.model, with_bias=False)):
        assert torch.equal(ours, own)
    assert type(teacher.model(run.data[0]._dataset)) is kind


def test_a_checkpoint_of_an_own_class_is_refused_where_it_is_not_trusted(distil, trained):
    path = trained(ByMethod).trainer.saved_model_file
    message = "asks for tests.features.test_own_models.ByMethod.*set teacher.trust_checkpoint: true"
    with pytest.raises(CheckpointError, match=message):
        distil("BPR", {"checkpoint": path})


def test_an_own_student_can_teach_in_turn(distil):
    first = distil(ByMethod)
    recipe = {"checkpoint": first.trainer.saved_model_file, "trust_checkpoint": True}
    second = distil("BPR", recipe)
    assert second.trainer.teacher.features[0].shape == (31, 5)


@every_kind
def test_a_recipe_with_an_own_class_is_trained_once_and_then_reused(distil, kind):
    recipe = {"model": kind, "own_width": 6, "epochs": 1}
    first, second = distil("BPR", recipe), distil("BPR", recipe, epochs=1)
    assert [run.trainer.teacher.origin for run in (first, second)] == ["trained", "reused"]
    for one, two in zip(first.trainer.teacher.features, second.trainer.teacher.features):
        assert torch.equal(one, two) and one.shape[1] == 6 + (kind is ByMethod)
    assert type(second.trainer.teacher.model(second.data[0]._dataset)) is kind


def test_an_own_class_can_be_named_as_the_teacher_where_no_class_can_be_written(distil):
    """In a YAML file or on the command line; and so it stands in the student's checkpoint."""
    recipe = {"own_width": 6, "epochs": 1}
    by_class, by_name = (
        distil("BPR", {"model": model, **recipe})
        for model in (ByTables, "tests.features.test_own_models.ByTables")
    )
    assert [run.trainer.teacher.origin for run in (by_class, by_name)] == ["trained", "reused"]
    assert by_class.config["teacher"]["model"] == "tests.features.test_own_models.ByTables"


@pytest.mark.parametrize(
    "name", ["tests.features.test_own_models.Nobody", "no_such_module.ByTables"]
)
def test_a_class_that_cannot_be_imported_is_refused_by_its_name(distil, name):
    with pytest.raises(ConfigError, match=rf"teacher.model: '{name}' cannot be imported.*Allowed"):
        distil("BPR", {"model": name})


def test_a_key_that_no_code_of_an_own_class_reads_is_refused_before_training(distil, tmp_path):
    message = (
        "Unknown key 'teacher.own_widht' for model .*ByMethod.*did you mean 'teacher.own_width'"
    )
    with pytest.raises(ConfigError, match=message):
        distil("BPR", {"model": ByMethod, "own_widht": 6})
    assert not list(tmp_path.glob("saved/*.pth"))


def test_the_keys_that_an_own_class_inherits_are_known_too(distil):
    """LightGCN's code has the brackets of some keys on lines of their own."""
    recipe = {
        "model": SimGCL,
        "embedding_size": 8,
        "n_layers": 1,
        "reg_weight": 1e-4,
        "require_pow": False,
    }
    teacher = distil("BPR", {**recipe, "epochs": 1}).trainer.teacher
    assert all(teacher.config[key] == value for key, value in recipe.items() if key != "model")
    assert teacher.features[0].shape == (31, 8)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module with a class Mine whose users start higher, by itself and by its parent."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = set()

    def write(module, own=0, inherited=0, helped=0):
        code = f"""
            from recbole.model.general_recommender import BPR

            print("something that a script does is no part of the class")


            def helper():
                return {helped}


            class Parent(BPR):
                def __init__(self, config, dataset):
                    super().__init__(config, dataset)
                    self.user_embedding.weight.data += {inherited}


            class Mine(Parent):
                def __init__(self, config, dataset):
                    super().__init__(config, dataset)
                    self.user_embedding.weight.data += {own} + helper()
        """
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        importlib.invalidate_caches()
        sys.modules.pop(module, None)
        written.add(module)
        return importlib.import_module(module).Mine

    yield write
    for module in written:
        del sys.modules[module]


OTHERS = {
    "of the same name": (("mine_one", {"own": 1}), ("mine_two", {"own": 10})),
    "edited since": (("mine", {"own": 1}), ("mine", {"own": 10})),
    "whose parent was edited since": (("mine", {"inherited": 1}), ("mine", {"inherited": 10})),
    "whose helper was edited since": (("mine", {"helped": 1}), ("mine", {"helped": 10})),
}


@pytest.mark.parametrize("versions", OTHERS.values(), ids=OTHERS)
def test_the_teacher_of_one_class_is_not_reused_for_another(distil, mine, versions):
    teachers = []
    for module, code in versions:
        recipe = {"model": mine(module, **code), "embedding_size": 6, "epochs": 1}
        teachers.append(distil("BPR", recipe).trainer.teacher)
    assert [teacher.origin for teacher in teachers] == ["trained", "trained"]
    assert [teacher.features[0].mean().round().item() for teacher in teachers] == [1, 10]


def test_the_teacher_of_a_class_that_is_imported_again_unchanged_is_reused(distil, mine):
    origins = []
    for _ in range(2):
        recipe = {"model": mine("mine", own=1), "embedding_size": 6, "epochs": 1}
        origins.append(distil("BPR", recipe).trainer.teacher.origin)
    assert origins == ["trained", "reused"]


def test_the_student_of_an_own_teacher_is_still_a_checkpoint_that_needs_no_trust(distil):
    from recbole_freqd.checkpoint.loading import load_checkpoint

    run = distil("BPR", {"model": ByTables, "own_width": 6, "epochs": 1})
    payload = load_checkpoint(run.trainer.saved_model_file)
    assert set(payload["state_dict"]) == {"user_embedding.weight", "item_embedding.weight"}

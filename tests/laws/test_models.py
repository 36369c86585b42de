"""Every general recommender that RecBole has at run time: as teacher of BPR, as student of BPR.

The list is read from RecBole, so that a model of a newer release fails here until it is handled.
What is found is recorded (``record_property``), for a script that makes a table of ``--junitxml``.
"""

import copy
import importlib.util
import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from recbole_freqd.config.models import OWN_MODELS
from recbole_freqd.config.models import general_models as recboles_models
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.features import ADAPTERS, adapter_of, extract_features, student_adapter
from recbole_freqd.features.check import ranks_alike

# What the models cannot do on 60 users and 80 items with RecBole's defaults; the rest are defaults.
KEYS = {
    "NCL": {"num_clusters": 5},
    "NCEPLRec": {"rank": 20},
    "RaCT": {"pretrain_epochs": 1, "save_step": 1},
}
ONE_DIMENSION = ("Pop", "Random")  # of features, where a cosine teaches nothing
TAUGHT, TEACHING = {"embedding_size": 8}, {"model": "BPR", "embedding_size": 16, "epochs": 1}
RANK = 8  # of the approximation that the share of energy is recorded for


def general_models():
    """RecBole's, and the two that this package adds."""
    return sorted([*recboles_models(), *OWN_MODELS])


# Left to `make test-all`.
SLOW = {"ConvNCF", "NNCF", "NAIS"}
# RecBole imports a package for these only.
NEEDY = {name for name in ADAPTERS.names() if ADAPTERS.get(name).extra}


def models(names):
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks(name)) for name in names]
    )


def marks(name):
    package = ADAPTERS.get(name).extra[0] if name in NEEDY else None
    missing = package is not None and importlib.util.find_spec(package) is None
    skip = [pytest.mark.skip(reason=f"{name} needs {package}")] if missing else []
    return [*skip, *([pytest.mark.slow] if name in SLOW else [])]


def can_be_student(name):
    """Also a model that nobody has handled yet, so that it fails in every test."""
    return name not in ADAPTERS.names() or ADAPTERS.get(name).student is not None


every_model = models(general_models())
every_student = models([name for name in general_models() if can_be_student(name)])
every_other = models([name for name in general_models() if not can_be_student(name)])


@pytest.fixture(scope="module")
def subset(tmp_path_factory):
    """A folder with the dataset ``subset``: 60 users and the 80 most popular items of ml-100k."""
    import pandas as pd
    import recbole

    folder = tmp_path_factory.mktemp("models")
    (folder / "subset").mkdir()
    source = f"{recbole.__path__[0]}/dataset_example/ml-100k/ml-100k.inter"
    inter = pd.read_csv(source, sep="\t")
    inter = inter[inter["item_id:token"].isin(inter["item_id:token"].value_counts().index[:80])]
    inter = inter[inter["user_id:token"].isin(inter["user_id:token"].value_counts().index[:300:5])]
    inter.to_csv(folder / "subset" / "subset.inter", sep="\t", index=False)
    return folder


@pytest.fixture
def configured(host, subset):
    """Makes a Config: ``configured(model, trainer=..., teacher=...)``, one epoch."""
    from recbole.config import Config

    def make(name, **keys):
        defaults = {
            "data_path": str(subset),
            "checkpoint_dir": str(subset / "saved"),  # BPR, the teacher, is trained once
            "load_col": {"inter": ["user_id", "item_id", "rating"]},
            "train_batch_size": 256,
            "eval_batch_size": 100_000,
            "epochs": 1,
            "show_progress": False,
            "state": "ERROR",
            "valid_metric": "NDCG@10",
        }
        return Config(name, "subset", config_dict={**defaults, **KEYS.get(name, {}), **keys})

    return make


@pytest.fixture(scope="module")
def shelf():
    """What was run once, by role and model."""
    return {}


@pytest.fixture
def teaching(configured, shelf):
    """The Run of a BPR student that was taught by a model."""
    from recbole_freqd.jobs import run as runs

    def teaching(name, **keys):
        key = ("teacher", name, str(keys))
        if key not in shelf:
            teacher = {"model": name, "epochs": 1, **KEYS.get(name, {}), **keys}
            keys = {"freqd_distance": "squared"} if name in ONE_DIMENSION else {}
            config = configured("BPR", **TAUGHT, **keys, trainer="FreqD", teacher=teacher)
            shelf[key] = runs.run(config, test=False)
        return shelf[key]

    return teaching


@pytest.fixture
def taught(configured, shelf):
    """The Run of a student that BPR has taught."""
    from recbole_freqd.jobs import run as runs

    def taught(name):
        key = ("student", name)
        if key not in shelf:
            shelf[key] = runs.run(configured(name, trainer="FreqD", teacher=TEACHING))
        return shelf[key]

    return taught


def scores_of(model):
    """All scores without padding, as the model itself gives them in eval mode, without a cache."""
    from recbole.data.interaction import Interaction

    users, items = torch.arange(model.n_users), torch.arange(model.n_items)
    for cache in adapter_of(model).caches:
        if hasattr(model, cache):
            setattr(model, cache, None)
    model.eval()
    torch.manual_seed(0)  # Random, and the noise by which ADMMSLIM breaks ties
    np.random.seed(0)
    with torch.no_grad():
        try:
            scores = model.full_sort_predict(Interaction({model.USER_ID: users}))
        except NotImplementedError:
            pairs = {
                model.USER_ID: users.repeat_interleave(len(items)),
                model.ITEM_ID: items.repeat(len(users)),
            }
            scores = model.predict(Interaction(pairs))
    return scores.view(model.n_users, model.n_items)[1:, 1:].float()


def random_streams():
    return {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],
        "python": random.getstate(),
    }


# --- the list ---------------------------------------------------------------------------------


def test_every_model_of_recbole_and_of_ours_has_an_adapter_and_every_adapter_a_model():
    ours = {
        name
        for name in ADAPTERS.names()
        if type(ADAPTERS.get(name)).__module__.startswith("recbole_freqd.")
    }
    assert set(general_models()) == ours


def test_every_family_is_tested_by_default():
    import pkgutil

    import recbole_freqd.features as package

    families = {module.name for module in pkgutil.iter_modules(package.__path__)}
    families -= {"base", "check", "data", "extract", "find", "low_rank", "own", "products"}
    families -= {"scores", "student"}
    families -= {"align", "approximation", "fold_in", "list_fit", "warm"}
    default = [name for name in general_models() if name not in SLOW | NEEDY]
    tested = {type(ADAPTERS.get(name)).__module__.rpartition(".")[2] for name in default}
    assert tested == families


# --- as teacher -------------------------------------------------------------------------------


@every_model
def test_a_model_teaches_bpr_and_is_not_taught_itself(name, teaching, record_property):
    run = teaching(name)
    teacher, trainer = run.trainer.teacher, run.trainer
    losses = {**trainer.train_loss_dict, **trainer.terms}
    assert {"base", "FreqD"} <= set(losses)
    assert np.isfinite([float(value) for value in losses.values()]).all()
    assert losses["FreqD"] > 0

    # What is trained are the student and the projectors; the teacher has moved nowhere.
    trained = {id(part) for group in trainer.optimizer.param_groups for part in group["params"]}
    assert trained == {id(p) for part in (run.model, trainer.distiller) for p in part.parameters()}
    model = teacher.model(run.data[0]._dataset)
    assert all(parameter.grad is None for parameter in model.parameters())
    for features, again in zip(teacher.features, extract_features(model, with_bias=False)):
        assert not features.requires_grad and features.grad is None
        assert torch.equal(features, again)

    kind, kept = check_features(model)
    record_property("model", name)
    record_property("teacher", kind)
    record_property("kept", kept)
    record_property("note", ADAPTERS.get(name).note)


def check_features(model):
    """Checks them against the model's scores; returns the kind, and the energy kept at RANK."""
    if adapter_of(model).exact(model):
        check_exact(model)
        return "exact", 1.0
    return "spectral", check_spectral(model)


def check_exact(model):
    """Products of the features are the scores, and the ten best are the model's own."""
    scores = scores_of(model)
    assert ranks_alike(model, adapter_of(model))  # else the features were an approximation
    user_emb, item_emb = extract_features(model, with_bias=True)
    products = (user_emb @ item_emb.T)[1:, 1:]
    monotone = products, products.sigmoid(), products.relu()  # DMF and CDAE map them
    errors = [float((mapped - scores).abs().max()) for mapped in monotone]
    assert min(errors) <= 1e-4 * float(scores.abs().max())

    own, ours = scores.topk(10).indices, products.topk(10).indices
    # Where another item is in a place, the two are tied: float32 cannot tell their scores apart.
    apart = (scores.gather(1, own) - scores.gather(1, ours)).abs()
    assert float((apart * (own != ours)).max()) <= 1e-6 * float(scores.abs().max())

    plain = extract_features(model, with_bias=False)
    for with_bias, without in zip((user_emb, item_emb), plain):
        assert torch.equal(with_bias[:, : without.shape[1]], without)


def check_spectral(model):
    """The features are as near to the scores as anything of that rank can be."""
    scores = scores_of(model).double()
    user_emb, item_emb = extract_features(model, rank=RANK)
    residual = float((user_emb[1:].double() @ item_emb[1:].double().T - scores).norm())
    singular = torch.linalg.svdvals(scores)
    assert user_emb.shape[1] == item_emb.shape[1] <= RANK
    assert user_emb.shape[1] >= int((singular[:RANK] > 1e-5 * singular[0]).sum())
    best, norm = float(singular[RANK:].norm()), float(singular.norm())
    assert residual <= (1.05 * best if best > 1e-4 * norm else 1e-4 * norm)
    return 1 - (best / norm) ** 2


@every_model
def test_features_are_read_twice_the_same_and_leave_the_model_as_it_was(name, teaching):
    run = teaching(name)
    model = run.trainer.teacher.model(run.data[0]._dataset)
    expected = extract_features(model, with_bias=True)

    scores_of(model)  # fills the caches, where there are any
    for number, module in enumerate(model.modules()):
        module.training = number % 2 == 0  # by hand: SGL.train() makes new graphs
    streams, before = random_streams(), snapshot(model)
    for features, again in zip(expected, extract_features(model, with_bias=True)):
        assert torch.equal(features, again)  # so they were read in eval mode
    assert random_streams() == streams
    assert_unchanged(before, model)


def snapshot(model):
    """The attributes of all modules, and copies of the arrays among them."""
    attributes = {path: dict(vars(module)) for path, module in model.named_modules()}
    arrays = {
        (path, name): copy.deepcopy(value)
        for path, found in attributes.items()
        for name, value in found.items()
        if isinstance(value, (torch.Tensor, np.ndarray))
    }
    return attributes, arrays, copy.deepcopy(model.state_dict())


def assert_unchanged(before, model):
    attributes, arrays, state = before
    for path, module in model.named_modules():
        now = vars(module)
        assert set(now) == set(attributes[path]), path
        assert all(value is attributes[path][name] for name, value in now.items()), path
    for (path, name), value in arrays.items():
        now = getattr(model.get_submodule(path), name)
        assert np.array_equal(dense(now), dense(value)), f"{path}.{name}"
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


def dense(array):
    return np.asarray(array.to_dense() if isinstance(array, torch.Tensor) else array)


@every_student
def test_features_are_those_of_the_weights_now_and_not_of_a_cache(name, taught):
    run = taught(name)
    stale, fresh = (build(run) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    move(stale, generator)
    scores_of(stale)  # fills the cache, where there is one
    move(stale, generator)
    fresh.load_state_dict(stale.state_dict())
    for features, expected in zip(extract_features(stale), extract_features(fresh)):
        assert torch.equal(features, expected)
    check_features(stale)


def move(model, generator):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def build(run, **keys):
    """A model like the one of a run, with first weights; ``keys`` change its config."""
    from recbole.utils import init_seed

    config = copy.copy(run.config)
    config.final_config_dict = {**run.config.final_config_dict, **keys}
    init_seed(config["seed"], config["reproducibility"])
    return config.model_class(config, run.data[0]._dataset)


# --- as student -------------------------------------------------------------------------------


@every_student
def test_a_model_is_taught_by_bpr(name, taught, record_property):
    run = taught(name)
    losses = {**run.trainer.train_loss_dict, **run.trainer.terms}
    assert {"base", "FreqD"} <= set(losses)
    assert np.isfinite([float(value) for value in losses.values()]).all()
    assert np.isfinite(list(run.test_result.values())).all() and "ndcg@10" in run.test_result
    adapter = ADAPTERS.get(name)
    record_property("model", name)
    record_property("student", adapter.student)
    record_property("capacity", ", ".join(adapter.capacity))
    record_property("note", adapter.note)
    record_property("trainer", host_trainer(run.config))
    record_property("input", run.config["MODEL_INPUT_TYPE"].name.lower())


def host_trainer(config):
    from recbole.utils import get_trainer

    return get_trainer(config["MODEL_TYPE"], config["model"]).__name__


class Stop(Exception):
    """The first optimizer step is about to be made."""


@dataclass
class FirstStep:
    """What there is when the optimizer is about to make its first step.

    Attributes:
        base: The parts of the model's own loss.
        gradients: Of the model's parameters, by name; of those that have one.
        streams: Of the global random numbers.
        state: Buffers and numbers that the model keeps.
        features, origins: By side: what the distillation read (without padding), and the names of
            the parameters that it is made of.
        model: Its weights are still the first ones.
    """

    model: Any
    base: list[float] = field(default_factory=list)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    streams: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    features: dict[str, torch.Tensor] = field(default_factory=dict)
    origins: dict[str, set[str]] = field(default_factory=dict)

    def note_features(self, _, arguments):
        """A hook: the distiller is about to read the features, its first argument."""
        rows = replace(arguments[0], in_place=False)  # that hides gradients from autograd.grad
        for side, count in (("user", self.model.n_users), ("item", self.model.n_items)):
            features = rows.of(side, torch.arange(1, count))
            self.features[side] = features.detach()
            self.origins[side] = made_of(features, self.model)

    def note_gradients(self, *_):
        """A hook: the optimizer is about to make a step."""
        buffers, attributes = self.model.named_buffers(), vars(self.model).items()
        self.state = {name: value.clone() for name, value in buffers}
        self.state |= {name: v for name, v in attributes if isinstance(v, (bool, int, float))}
        self.gradients = {
            name: parameter.grad.clone()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        self.streams = random_streams()
        raise Stop


@pytest.fixture
def first_step(configured):
    """Fits a model as RecBole does, up to its first optimizer step."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer, init_seed

    def fit(name, distilled=True, without_base=False, **keys):
        if distilled:
            keys.update(trainer="FreqD", teacher=TEACHING, freqd_beta=1.0)
        config = configured(name, **keys)
        init_seed(config["seed"], config["reproducibility"])
        train_data, valid_data, _ = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], config["reproducibility"])
        model = config.model_class(config, train_data._dataset)
        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        step, own_loss = FirstStep(model), model.calculate_loss

        def calculate_loss(*args, **kwargs):
            losses = own_loss(*args, **kwargs)
            parts = losses if isinstance(losses, tuple) else (losses,)
            step.base = [part.item() for part in parts]
            if not without_base:
                return losses
            trainer.distiller.register_forward_pre_hook(step.note_features)
            parts = tuple(torch.zeros_like(part) for part in parts)
            return parts if isinstance(losses, tuple) else parts[0]

        model.calculate_loss = calculate_loss
        for optimizer in vars(trainer).values():
            if isinstance(optimizer, torch.optim.Optimizer):
                optimizer.register_step_pre_hook(step.note_gradients)
        with pytest.raises(Stop):
            trainer.fit(train_data, valid_data)
        trainer.tensorboard.close()
        return step

    return fit


def made_of(features, model):
    """Names of the parameters that features depend on."""
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if not features.requires_grad:
        return set()
    found = torch.autograd.grad(
        (features * weights).sum(), list(named.values()), retain_graph=True, allow_unused=True
    )
    return nonzero({name: value for name, value in zip(named, found) if value is not None})


def nonzero(gradients):
    return {name for name, gradient in gradients.items() if gradient.any()}


@every_student
def test_distillation_adds_its_gradient_to_the_features_and_changes_nothing_else(name, first_step):
    check_first_step(first_step, name)


def check_first_step(first_step, name, **keys):
    plain = first_step(name, distilled=False, **keys)
    both = first_step(name, **keys)
    ours = first_step(name, without_base=True, **keys)

    # The model's own loss and all random numbers are those of RecBole without us.
    assert both.base == ours.base == plain.base and np.isfinite(plain.base).all()
    for step in (both, ours):
        assert step.streams == plain.streams
        torch.testing.assert_close(step.state, plain.state, rtol=0, atol=0)

    # The gradients add up (the weight is 1), and what had one keeps it.
    assert set(both.gradients) >= set(plain.gradients)
    assert nonzero(both.gradients) >= nonzero(plain.gradients)
    for path, gradient in both.gradients.items():
        parts = [step.gradients[path] for step in (plain, ours) if path in step.gradients]
        scale = max(float(part.abs().max()) for part in parts)
        torch.testing.assert_close(gradient, sum(parts), rtol=1e-4, atol=1e-5 * scale)

    # Ours reaches all that the features of users, and of items, are made of, and nothing else.
    assert ours.origins["user"] and ours.origins["item"]
    assert nonzero(ours.gradients) == ours.origins["user"] | ours.origins["item"]

    # What it read are the features by which the model would rank now.
    exact = adapter_of(ours.model).exact(ours.model)
    if exact and type(ours.model).__name__ not in DROPOUT and "sampling_steps" not in keys:
        for read, features in zip(ours.features.values(), extract_features(ours.model, False)):
            torch.testing.assert_close(read, features[1:], rtol=1e-4, atol=1e-6)


DROPOUT = {"NGCF", "GCMC"}  # in the propagation that the distillation shares with the model's loss


# --- scores to teach ---------------------------------------------------------------------------


SIGMOID = {"CDAE", "DMF", "NAIS", "NNCF", "NeuMF"}  # on top of what RecBole ranks by


def assert_scores(name, found, expected):
    """Whether scores are those of the model, or what is below its sigmoid or relu."""
    mapped = [found, found.sigmoid(), found.relu()]
    scale = float(expected.abs().max()) + 1e-6
    errors = [float((values - expected).abs().max()) for values in mapped]
    assert min(errors) <= 1e-4 * scale
    assert (errors[0] > 1e-4 * scale) == (name in SIGMOID)


def chosen_pairs(model):
    """Users (b,), the first of them twice, and items (b, 6), none of them the padding."""
    generator = torch.Generator().manual_seed(1)
    users = torch.randint(1, model.n_users, (7,), generator=generator)
    users[3] = users[0]
    return users, torch.randint(1, model.n_items, (7, 6), generator=generator)


@every_student
def test_a_students_scores_are_those_it_ranks_by_and_train_it(name, taught):
    from recbole_freqd.features import StudentRanker, shared_features

    run = taught(name)
    model, adapter = build(run), adapter_of(run.model)
    move(model, torch.Generator().manual_seed(0))  # biases too
    users, items = chosen_pairs(model)
    exact = scores_of(model)[users[:, None] - 1, items - 1]
    for cache in adapter.caches:
        if hasattr(model, cache):
            setattr(model, cache, None)

    ranker, before = StudentRanker(model, adapter), random_streams()
    assert_scores(name, ranker.at(users, items), exact)
    torch.testing.assert_close(
        ranker.at(users, items), ranker.block(users).gather(1, items), rtol=1e-4, atol=1e-5
    )
    for module in model.modules():
        module.training = True
    with shared_features(model, adapter) as features:
        scores = features().scores(users, items)
    assert random_streams() == before
    assert scores.dtype == torch.float32 and scores.shape == items.shape
    assert_scores(name, scores.detach(), exact)
    torch.testing.assert_close(scores, ranker.at(users, items), rtol=1e-4, atol=1e-5)
    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
    (scores * weights).sum().backward()
    gradients = {path: p.grad for path, p in model.named_parameters() if p.grad is not None}
    assert nonzero(gradients)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@every_model
def test_a_teacher_ranks_by_its_own_scores(name, teaching):
    from recbole_freqd.core.rankers import FeatureRanker, top_items

    run = teaching(name)
    teacher, dataset = run.trainer.teacher, run.data[0]._dataset
    ranker, model = teacher.ranker(dataset), teacher.model(dataset)
    assert isinstance(ranker, FeatureRanker) == adapter_of(model).exact(model)
    scores, (users, items) = scores_of(model), chosen_pairs(model)
    assert_scores(name, ranker.block(torch.arange(1, model.n_users))[:, 1:], scores)
    torch.testing.assert_close(
        ranker.at(users, items), ranker.block(users).gather(1, items), rtol=1e-4, atol=1e-5
    )
    top = top_items(ranker, 5)
    best = scores.gather(1, top.ids[1:].long() - 1)  # as good as the model's own, if not the same
    scale = float(scores.abs().max()) + 1e-6
    assert float((best - scores.topk(5).values).abs().max()) <= 1e-4 * scale


# --- with other keys --------------------------------------------------------------------------

# Those by which a model computes its scores, its loss or its features in another way.
OTHER_KEYS = {
    "ADMMSLIM centred": ("ADMMSLIM", {"center_columns": True}),
    "CDAE relu": ("CDAE", {"out_activation": "relu", "hid_activation": "tanh"}),
    "DiffRec noise": ("DiffRec", {"mean_type": "eps"}),
    "DiffRec sampling": ("DiffRec", {"sampling_steps": 2, "sampling_noise": True}),
    "DMF ratings": ("DMF", {"inter_matrix_type": "rating"}),
    "FISM normalised": ("FISM", {"alpha": 0.5}),
    "GCMC sum": ("GCMC", {"accum": "sum", "sparse_feature": False}),
    "ItemKNN users": ("ItemKNN", {"knn_method": "user"}),
    "LDiffRec deep": ("LDiffRec", {"in_dims": [60, 30], "out_dims": [40]}),
    "LDiffRec sampling": ("LDiffRec", {"sampling_steps": 2, "sampling_noise": True}),
    "LINE first order": ("LINE", {"order": 1}),
    "MacridVAE one facet": ("MacridVAE", {"kfac": 1, "nogb": True}),
    "MultiDAE deep": ("MultiDAE", {"mlp_hidden_size": [60, 30]}),
    "MultiVAE deep": ("MultiVAE", {"mlp_hidden_size": [60, 30]}),
    "NAIS concat": ("NAIS", {"algorithm": "concat"}),
    "NCL all losses": ("NCL", {"warm_up_step": 0}),
    "NeuMF network": ("NeuMF", {"mf_train": False}),
    "NeuMF product": ("NeuMF", {"mlp_train": False}),
    "NGCF no dropout": ("NGCF", {"node_dropout": 0.0, "message_dropout": 0.0}),
    "RaCT finetune": ("RaCT", {"train_stage": "finetune"}),
    "RecVAE decoder": ("RecVAE", {"n_enc_epochs": 0}),
    "SGL nodes": ("SGL", {"type": "ND"}),
    "SimpleX attention": ("SimpleX", {"aggregator": "user_attention"}),
    "SimpleX self-attention": ("SimpleX", {"aggregator": "self_attention"}),
}
with_other_keys = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=marks(name)) for case, (name, _) in OTHER_KEYS.items()]
)


def keys_of(case, taught):
    name, keys = OTHER_KEYS[case]
    if "train_stage" in keys:  # it goes on from an earlier one
        keys = {**keys, "pre_model_path": taught(name).trainer.saved_model_file}
    return name, keys


@pytest.mark.slow
@with_other_keys
def test_with_other_keys_a_model_teaches_too(case, teaching, taught):
    name, keys = keys_of(case, taught)
    run = teaching(name, **keys)
    check_features(run.trainer.teacher.model(run.data[0]._dataset))


@pytest.mark.slow
@with_other_keys
def test_with_other_keys_a_model_is_taught_too(case, first_step, taught):
    name, keys = keys_of(case, taught)
    if can_be_student(name):
        check_first_step(first_step, name, **keys)


def test_a_student_whose_features_are_not_trained_is_refused(first_step, taught):
    path = taught("RaCT").trainer.saved_model_file
    with pytest.raises(ConfigError, match="RaCT"):
        first_step("RaCT", train_stage="critic_pretrain", pre_model_path=path, metrics_k=20)


# --- as student: capacity, checkpoints, refusals ----------------------------------------------

# Values other than half the default, and keys that cannot be changed alone.
SMALLER = {
    ("ConvNCF", "embedding_size"): {"embedding_size": 32, "cnn_strides": [4, 2, 2, 2]},
    ("ConvNCF", "cnn_kernels"): {"cnn_kernels": [2, 2, 2, 2]},
    ("ConvNCF", "cnn_strides"): {"embedding_size": 32, "cnn_strides": [4, 2, 2, 2]},
    ("DMF", "user_hidden_size_list"): {
        "user_hidden_size_list": [64, 32],
        "item_hidden_size_list": [64, 32],
    },
    ("DMF", "item_hidden_size_list"): {
        "user_hidden_size_list": [64, 32],
        "item_hidden_size_list": [64, 32],
    },
}


@every_student
def test_capacity_keys_set_the_width_of_the_features(name, taught):
    run = taught(name)
    default = widths(build(run))
    assert ADAPTERS.get(name).capacity
    for key in ADAPTERS.get(name).capacity:
        value = run.config[key]
        half = [part // 2 for part in value] if isinstance(value, list) else value // 2
        changed = build(run, **SMALLER.get((name, key), {key: half}))
        # The kernels of ConvNCF are not as wide as its features, but as what reads them.
        same = default[:2] if key != "cnn_kernels" else default
        assert widths(changed)[: len(same)] != same, key


def widths(model):
    """Widths of the features of a user and of an item, and the number of parameters."""
    with torch.no_grad():
        rows, one = student_adapter(model).rows(model.eval()), torch.ones(1, dtype=torch.int64)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return rows.user(one).shape[1], rows.item(one).shape[1], parameters


@every_student
def test_a_distilled_student_is_a_checkpoint_of_recbole(name, taught):
    from recbole.quick_start import load_data_and_model

    run = taught(name)
    model = load_data_and_model(run.trainer.saved_model_file)[1]
    assert type(model) is type(run.model)
    assert torch.equal(scores_of(model), scores_of(run.model))


@every_other
def test_a_model_that_is_not_trained_cannot_be_a_student(name, configured, record_property):
    from recbole_freqd.jobs import run as runs

    with pytest.raises(ConfigError, match=f"^{name} cannot be a student: .*Change model") as caught:
        runs.run(configured(name, trainer="FreqD", teacher=TEACHING))
    assert "one pass" in str(caught.value) and "BPR" in str(caught.value)
    record_property("model", name)
    record_property("student", "")
    record_property("capacity", "")
    record_property("note", ADAPTERS.get(name).note)
    record_property("trainer", host_trainer(configured(name)))
    record_property("input", configured(name)["MODEL_INPUT_TYPE"].name.lower())
    record_property("why_not", str(caught.value))

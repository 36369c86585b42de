"""Every general recommender that RecBole has at run time: as teacher of BPR, as student of BPR.

What is found is recorded (``record_property``); ``docs/make_models.py`` makes a table of it.
"""

import numpy as np
import pytest
import torch

from recbole_freqd.config import general_models
from recbole_freqd.features import ADAPTERS, adapter_of, extract_features

# What the models cannot do on 60 users and 80 items with RecBole's defaults; the rest are defaults.
KEYS = {
    "NCL": {"num_clusters": 5},
    "NCEPLRec": {"rank": 20},
    "RaCT": {"pretrain_epochs": 1, "save_step": 1},
}
TAUGHT, TEACHING = {"embedding_size": 8}, {"model": "BPR", "embedding_size": 16, "epochs": 1}

every_model = pytest.mark.parametrize("name", general_models())


@pytest.fixture(scope="session")
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
def fit(host, subset, tmp_path):
    """Trains one epoch of ``fit(student, trainer=..., teacher=...)`` and returns the Run."""
    from recbole.config import Config

    from recbole_freqd import runs

    def fit(name, **keys):
        defaults = {
            "data_path": str(subset),
            "checkpoint_dir": str(tmp_path / "saved"),
            "train_batch_size": 256,
            "eval_batch_size": 100_000,
            "epochs": 1,
            "show_progress": False,
            "state": "ERROR",
            "valid_metric": "NDCG@10",
        }
        config = Config(name, "subset", config_dict={**defaults, **keys})
        return runs.run(config)

    return fit


def scores_of(model):
    """The whole score matrix without padding, as the model gives it."""
    from recbole_freqd.ranking import ScoredUsers, undisturbed

    with undisturbed(model, adapter_of(model).caches):
        blocks = torch.cat(list(ScoredUsers(model)._blocks()))
    return blocks[1:, 1:]


@every_model
def test_as_teacher(name, fit, record_property, caplog):
    teacher_keys = {"model": name, "epochs": 1, **KEYS.get(name, {})}
    run = fit("BPR", **TAUGHT, trainer="FreqD", teacher=teacher_keys)
    assert np.isfinite(list(run.trainer.train_loss_dict.values())).all()
    assert set(run.test_result) >= {"ndcg@10"}
    model = run.trainer.teacher.model(run.data[0]._dataset)
    scores, features = scores_of(model), run.trainer.teacher.features
    assert all(parameter.grad is None for parameter in model.parameters())
    if adapter_of(model).exact(model):
        check_exact(model, scores, features)
        kind, kept = "exact", 1.0
    else:
        kind, kept = "spectral", check_spectral(model, scores)
    record_property("model", name)
    record_property("teacher", kind)
    record_property("kept", kept)


def check_exact(model, scores, taught):
    user_emb, item_emb = extract_features(model, with_bias=True)
    products = (user_emb @ item_emb.T)[1:, 1:]
    maps = {"as it is": products, "sigmoid": torch.sigmoid(products)}
    errors = {name: float((mapped - scores).abs().max()) for name, mapped in maps.items()}
    assert min(errors.values()) <= 1e-4 * float(scores.abs().max())
    best = maps[min(errors, key=errors.get)]
    # Ties may be ordered either way: what is compared are the scores of the ten best.
    own = scores.gather(1, scores.topk(10).indices)
    ours = scores.gather(1, best.topk(10).indices)
    torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)
    for with_bias, without in zip((user_emb, item_emb), taught):
        assert torch.equal(with_bias[:, : without.shape[1]], without)


def check_spectral(model, scores):
    """Returns the share of energy kept at rank 8."""
    rank = 8
    user_emb, item_emb = extract_features(model, rank=rank)
    assert user_emb.shape[1] <= rank
    residual = float((user_emb[1:] @ item_emb[1:].T - scores).norm())
    singular = torch.linalg.svdvals(scores.double())
    best = float(singular[rank:].square().sum().sqrt())
    assert residual <= 1.05 * best + 1e-3 * float(singular.norm())
    return 1 - float(singular[rank:].square().sum() / singular.square().sum())


@every_model
def test_as_student(name, fit, record_property):
    from recbole_freqd.errors import ConfigError

    keys = {**KEYS.get(name, {})}
    if ADAPTERS.get(name).student is None:
        with pytest.raises(ConfigError, match=f"{name} cannot be a student"):
            fit(name, **keys, trainer="FreqD", teacher=TEACHING)
        return
    run = fit(name, **keys, trainer="FreqD", teacher=TEACHING)
    assert np.isfinite(list(run.trainer.train_loss_dict.values())).all()
    assert set(run.test_result) >= {"ndcg@10"}
    record_property("model", name)
    record_property("student", ADAPTERS.get(name).student)
    record_property("capacity", ", ".join(ADAPTERS.get(name).capacity))

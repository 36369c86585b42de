"""Students that start warm: their scores against dense oracles, or the reason why they cannot."""

import numpy as np
import pytest
import torch

from recbole_freqd.catalogue import FeatureRanker
from recbole_freqd.errors import ConfigError
from recbole_freqd.features import ADAPTERS, StudentRanker, adapter_of, extract_features
from recbole_freqd.features.approximation import approximate
from recbole_freqd.features.warm import PROPAGATED, TABLES
from recbole_freqd.warm_start import check_warm, warm_start

WIDTH = 4
KEYS = {"NeuMF": {"mf_embedding_size": WIDTH, "mlp_train": False}, "NCL": {"num_clusters": 5}}
STUDENTS = [name for name in ADAPTERS.names() if ADAPTERS.get(name).student is not None]
CAN = {"BPR", "LINE", "ENMF", "NeuMF", "SimpleX", "CDAE", "LightGCN", "SGL", "NCL", "FISM"}
EXACT = {"BPR", "LINE", "ENMF", "NeuMF"}
NO_FAISS = pytest.mark.skipif("NCL" in CAN, reason="needs faiss")


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
    silent = ADAPTERS.get("BPR").__class__.__mro__[1].warm  # the base's
    for name in STUDENTS:
        assert ADAPTERS.get(name).warm not in ("", silent) or name in CAN


@every(STUDENTS)
def test_a_student_starts_warm_or_the_error_names_the_reason(name, built):
    model, adapter, teacher, _ = make(built, name)
    if name not in CAN:
        with pytest.raises(ConfigError) as caught:
            warm_start(model, adapter, FeatureRanker(*teacher))
        assert adapter.warm_by(model) in str(caught.value) and "warm_start: none" in str(caught.value)
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

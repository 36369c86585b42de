"""What tells a planned run from another one, and what does not."""

import importlib
import os
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from recbole.model.general_recommender import BPR
from scipy import sparse

from recbole_freqd.checkpoint import fingerprint
from recbole_freqd.identity import planned_identity, weights_hash
from recbole_freqd.losses import LOSSES
from recbole_freqd.model_classes import class_fingerprint

FORMS = ("table", "counts", "sparse", "dense", "lists", "coo", "name")


@pytest.fixture
def name_of(tiny_config, teacher_recipe):
    """The hash of a planned run with FD: ``name_of(learning_rate=0.1)``."""

    def name(scored_only=False, **keys):
        config = tiny_config(**{"trainer": "FD", "teacher": teacher_recipe, **keys})
        return fingerprint(planned_identity(config, metrics=not scored_only))

    return name


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A class in a file of its own, as the file says now: ``own("FDLoss", "x = 1")``."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(parent, body):
        file = tmp_path / "own_classes.py"
        module = "losses" if parent.endswith("Loss") else "general_recommender"
        package = "recbole_freqd" if module == "losses" else "recbole.model"
        file.write_text(
            f"from {package}.{module} import {parent}\n\n\nclass Mine({parent}):\n    {body}\n"
        )
        monkeypatch.delitem(sys.modules, "own_classes", raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("own_classes").Mine

    return make


def test_a_loss_of_your_own_that_was_edited_makes_another_run(name_of, own, monkeypatch):
    def with_loss(body):
        monkeypatch.setattr(LOSSES, "_entries", {**LOSSES._entries, "FD": own("FDLoss", body)})
        return name_of()

    ours = name_of()
    first = with_loss("x = 1")
    assert first == with_loss("x = 1") != ours
    assert with_loss("x = 22") != first


def test_a_teacher_class_of_your_own_that_was_edited_makes_another_run(name_of, own):
    def with_teacher(body):
        return name_of(teacher={"model": own("BPR", body), "embedding_size": 8})

    first = with_teacher("x = 1")
    assert first == with_teacher("x = 1")
    assert with_teacher("x = 22") != first


PROMPT = """
class Tower:
    width = {width}

def helper(x):
    return x * SCALE + {added}

SCALE = {scale}

class Mine(BPR):
    def calculate_loss(self, interaction):
        return helper(super().calculate_loss(interaction))
"""


def test_a_class_that_was_typed_in_goes_by_what_it_was_compiled_to(monkeypatch):
    module = types.ModuleType("prompt")
    monkeypatch.setitem(sys.modules, "prompt", module)
    module.BPR = BPR

    def typed(width=1, added=2, scale=3):
        exec(PROMPT.format(width=width, added=added, scale=scale), vars(module))
        return class_fingerprint(module.Mine)

    first = typed()
    assert first == typed()
    others = {typed(width=10), typed(added=20), typed(scale=30)}
    assert len(others) == 3 and first not in others


def test_a_file_that_a_model_starts_from_goes_by_its_content(name_of, tmp_path):
    file = tmp_path / "pre.pth"
    names = []
    for content in ("one", "one", "another"):
        file.write_text(content)
        names.append(name_of(pre_model_path=str(file)))
    assert names[0] == names[1] != names[2]
    assert name_of(pre_model_path="nowhere.pth") != names[2]


def test_the_order_of_the_teachers_keys_is_no_difference_and_their_values_are(
    name_of, teacher_recipe
):
    turned = dict(reversed(teacher_recipe.items()))
    assert list(turned) != list(teacher_recipe)
    assert name_of(teacher=turned) == name_of() != name_of(teacher={**turned, "epochs": 3})


def test_a_teachers_checkpoint_goes_by_its_content_not_by_its_place_or_how_it_is_read(
    name_of, tmp_path
):
    (tmp_path / "a.pth").write_bytes(b"weights")
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    first = name_of(teacher={"checkpoint": str(tmp_path / "a.pth")})
    other = {"checkpoint": str(tmp_path / "b.pth"), "trust_checkpoint": True, "memory_map": True}
    assert name_of(teacher=other) == first
    assert name_of(teacher={**other, "precision": "float16"}) != first
    (tmp_path / "b.pth").write_bytes(b"others!")
    os.utime(tmp_path / "b.pth", (1, 1))
    assert name_of(teacher=other) != first


def test_metrics_that_are_only_computed_can_be_left_out_and_the_one_that_decides_cannot(name_of):
    more = {"metrics": ["NDCG", "Recall"], "topk": [10, 20]}
    assert name_of(**more) != name_of()
    assert name_of(scored_only=True, **more) == name_of(scored_only=True)
    assert name_of(scored_only=True, **more, valid_metric="NDCG@20") != name_of(scored_only=True)


@pytest.mark.parametrize("part", FORMS)
def test_weights_are_told_apart_in_every_form_that_a_checkpoint_has_them_in(part):
    def payload(number):
        value = {name: float(number if name == part else 1) for name in FORMS}
        return {
            "epoch": number,
            "state_dict": {
                "table": torch.full((30, 8), value["table"], dtype=torch.bfloat16),
                "counts": torch.tensor(value["counts"]),
                f"buffer{value['name']}": torch.ones(0),
            },
            "other_parameter": {
                "sparse": sparse.eye(2000, format="csr") * value["sparse"],
                "dense": np.r_[np.zeros(3000), value["dense"], np.zeros(3000)],
                "lists": sparse.eye(9, format="lil") * value["lists"],
                "coo": torch.eye(9).mul(value["coo"]).to_sparse(),
            },
        }

    assert weights_hash(payload(1)) == weights_hash({**payload(1), "epoch": 7})
    assert weights_hash(payload(1)) != weights_hash(payload(2))

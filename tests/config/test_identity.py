"""What tells a planned run from another one, and what does not."""

import importlib
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from recbole_freqd.config.identity import planned_identity, weights_hash
from recbole_freqd.config.own_code import class_fingerprint
from recbole_freqd.core.files import fingerprint
from recbole_freqd.losses import LOSSES

ROOT = Path(__file__).resolve().parents[2]
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


CODE = """
import contextlib, functools
import torch
from recbole.model.general_recommender import BPR

SCALE, SIZES = 3, (64, 32)
WIDTHS, DEPTHS = {"wide": 6}, {"deep": [7, 8]}
unused = 0

try:
    def added(x, least=1):
        return x + 2
except ImportError:
    pass

def noted(function):
    def inner(*arguments):
        return function(*arguments) + 4
    return inner

@noted
@torch.no_grad()
def helper(x):
    return added(x) * SCALE

class Tower:
    kinds = {"a", "b", "c"}
    width = SIZES[0]

    def knows(self, kind):
        return kind in {"d", "e", "f"}

class Mine(BPR):
    class Inner:
        depth = 5

    @functools.cached_property
    def part(self):
        return Tower.width

    def calculate_loss(self, interaction):
        sizes = WIDTHS["wide"] + DEPTHS["deep"][0]
        return helper(super().calculate_loss(interaction)) + sizes
"""
EDITS = {
    "a dict": ('{"wide": 6}', '{"wide": 60}'),
    "a list in a dict": ("[7, 8]", "[7, 80]"),
    "a constant": ("SIZES = 3,", "SIZES = 30,"),
    "a tuple": ("(64, 32)", "(65, 32)"),
    "a default": ("least=1", "least=9"),
    "a helper": ("x + 2", "x + 20"),
    "a decorator": ("+ 4", "+ 40"),
    "what is decorated": ("* SCALE", "- SCALE"),
    "a class beside it": ("SIZES[0]", "SIZES[1]"),
    "a class in it": ("depth = 5", "depth = 50"),
    "a property": ("return Tower.width", "return -Tower.width"),
}


@pytest.fixture(params=["in a file", "typed in"])
def fingerprint_of(request, tmp_path, monkeypatch):
    """The fingerprint of Mine, as some code says it."""

    def of(code):
        module = types.ModuleType("mine_of_now")
        monkeypatch.setitem(sys.modules, "mine_of_now", module)
        if request.param == "in a file":
            module.__file__ = str(tmp_path / f"{abs(hash(code))}.py")
            Path(module.__file__).write_text(code)
        exec(compile(code, getattr(module, "__file__", "<typed>"), "exec"), vars(module))
        return class_fingerprint(module.Mine)

    return of


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_class_goes_by_all_that_it_names_in_its_module(fingerprint_of, edit):
    assert edit[0] in CODE
    assert fingerprint_of(CODE.replace(*edit)) != fingerprint_of(CODE)


def test_a_class_does_not_go_by_what_it_does_not_name(fingerprint_of):
    first = fingerprint_of(CODE)
    for other in ("unused = 1", "start = 12.5\nfor seed in (1, 2):\n    print(seed)", "# a word"):
        assert fingerprint_of(CODE.replace("unused = 0", other)) == first


def test_the_fingerprint_of_a_typed_class_is_the_same_in_every_process():
    code = f"import recbole_freqd\nrecbole_freqd.register()\n{CODE}\n"
    code += "from recbole_freqd.config.own_code import code_of\nprint(code_of(Mine))"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] and "Mine.calculate_loss" in said[0]


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

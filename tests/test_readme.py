"""The code in README and docs does what it says, on the tiny data."""

import re
from pathlib import Path

import pytest
import torch

from recbole_freqd.features import ADAPTERS
from recbole_freqd.model_classes import general_models

HOME = Path(__file__).resolve().parent.parent
README = (HOME / "README.md").read_text(encoding="utf-8")
MODELS = (HOME / "docs" / "models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SMALL = {"epochs": 1, "train_batch_size": 64, "show_progress": False, "state": "ERROR"}


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch):
    monkeypatch.setattr(ADAPTERS, "_entries", dict(ADAPTERS._entries))


def python_block(containing):
    (block,) = [code for kind, code in BLOCKS if kind == "python" and containing in code]
    return block


@pytest.fixture
def tiny_instead_of_ml_100k(tiny_data, tmp_path, monkeypatch, host):
    """What the README says of ml-100k happens on the tiny data, for one epoch."""
    from recbole.config.configurator import Config

    (distil,) = [code for kind, code in BLOCKS if kind == "yaml" and code.startswith("# distil")]
    (tmp_path / "distil.yaml").write_text(distil.replace("64\n", "6\n  epochs: 1\n"))
    load = Config._load_internal_config_dict
    data = {"data_path": str(tiny_data), "load_col": {"inter": ["user_id", "item_id"]}}

    def with_small_defaults(self, model, model_class, dataset):
        load(self, model, model_class, dataset)
        self.internal_config_dict.update({**SMALL, **data})

    monkeypatch.setattr(Config, "_load_internal_config_dict", with_small_defaults)


@pytest.mark.parametrize(
    "containing", ["import run_recbole_freqd", "run_recbole(", "FreqDTrainer(config"]
)
def test_a_way_in_runs_as_written(tiny_instead_of_ml_100k, containing, capsys):
    code = python_block(containing).replace("ml-100k", "tiny").replace(": 64}", ": 6}")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    shown = capsys.readouterr().out
    assert "ndcg@10" in shown or "run_recbole" in names


def test_the_loss_works_without_recbole_as_written():
    from tests.oracles import random_interactions

    ids = torch.tensor([1, 2, 3])
    names = {
        "user_items": random_interactions(1),
        "teacher_user_emb": torch.randn(9, 20),
        "teacher_item_emb": torch.randn(10, 20),
        "student_user_emb": torch.randn(9, 8, requires_grad=True),
        "student_item_emb": torch.randn(10, 8, requires_grad=True),
        "user_ids": ids, "positive_item_ids": ids, "negative_item_ids": ids + 3,
        "base_loss": torch.tensor(1.0), "beta": 0.5,
    }  # fmt: skip
    exec(compile(python_block("a plain torch module"), "README.md", "exec"), names)
    names["total"].backward()
    assert names["student_item_emb"].grad.abs().sum() > 0


def test_every_key_of_freqd_is_in_the_readme_with_its_default():
    from recbole_freqd.settings import method_keys

    rows = {}
    for names, default in re.findall(r"^\| (`freqd_.*?) \| (.*?) \|", README, re.MULTILINE):
        values = [value.strip() for value in default.split(",")]
        rows.update(zip(re.findall(r"`(\w+)`", names), values))
    expected = {
        name: "null" if key.default is None else str(key.default)
        for name, key in method_keys("FreqD").items()
    }
    assert rows == expected


def test_every_file_the_readme_links_to_is_there():
    root = Path(__file__).resolve().parent.parent
    links = re.findall(r"\]\((?!http|#)([^)#]+)\)", README)
    missing = [link for link in links if not (root / link).exists()]
    assert links and not missing


def test_own_models_of_the_docs_run_as_written(tiny_instead_of_ml_100k, tmp_path, monkeypatch):
    import importlib

    code = re.findall(r"^```python\n(.*?)^```", MODELS, re.MULTILINE | re.DOTALL)
    # A module, since a checkpoint refers to the classes by where they can be imported from.
    text = "\n".join(code).replace("ml-100k", "tiny").replace(": 64}", ": 6}")
    (tmp_path / "own_models_of_the_docs.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("own_models_of_the_docs")
    assert {"ndcg@10"} <= set(module.result["test_result"]) & set(
        module.result["teacher_test_result"]
    )


def test_the_table_of_models_has_a_row_for_every_model_and_says_what_the_adapters_say(host):
    table = MODELS.partition("<!-- table -->")[2].partition("<!-- /table -->")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    rows = {row[0]: row for row in rows[3:] if row != [""]}
    assert sorted(rows) == general_models()
    for name, row in rows.items():
        assert row[3] == (ADAPTERS.get(name).student or "no (closed form)"), "run `make docs`"

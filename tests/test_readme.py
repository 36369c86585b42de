"""The README's code does what it says, on the tiny data."""

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SMALL = {"epochs": 1, "train_batch_size": 64, "show_progress": False, "state": "ERROR"}


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

"""The code of docs/serving.md and examples/ ranks as RecBole does."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import recbole_freqd
from recbole_freqd import runs
from recbole_freqd.identity import pairs, tokens
from tests.test_exporting import hidden

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "faiss_top_k.py"
DOC = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def test_the_example_prints_the_items_that_recbole_ranks_first(tiny_config):
    pytest.importorskip("faiss")
    run = runs.run(tiny_config())
    recbole_freqd.export(run.trainer.saved_model_file, "embeddings", histories=True)
    done = subprocess.run([sys.executable, EXAMPLE, "embeddings"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    users, items = (names[1:] for names in tokens(run.data[0]._dataset))
    known = {tuple(pair) for loader in run.data for pair in pairs(loader._dataset) - 1}
    ranked = hidden(run.model, run.data[0]._dataset, n=len(items))
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == users.tolist()
    for user, line in enumerate(lines):
        expected = [items[item] for item in ranked[user] if (user, item) not in known][:10]
        assert line[1:] == expected


def test_the_code_of_the_docs_is_that_of_the_example():
    (block,) = [
        code for code in re.findall(r"```python\n(.*?)```", DOC, re.DOTALL) if "faiss" in code
    ]
    assert block in EXAMPLE.read_text(encoding="utf-8") and len(block.splitlines()) <= 10


def test_every_file_the_docs_link_to_is_there_and_every_option_is_the_scripts():
    from recbole_freqd.quick_start import _parse

    for name in ("serving.md", "tuning.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        links = re.findall(r"\]\((?!http|#)([^)#]+)\)", text)
        assert links and all((ROOT / "docs" / link).exists() for link in links)
        for option in re.findall(r"^\| `(--\w+)", text, re.MULTILINE):
            value = (
                []
                if option
                in ("--histories", "--overwrite", "--trust_checkpoint", "--keep_checkpoints")
                else ["1"]
            )
            known = (
                vars(_parse([option, *value])[0]) if option != "--data_path" else {"data_path": 1}
            )
            assert known[option[2:]]


def test_the_manifest_has_no_key_that_the_docs_do_not_explain(tiny_config):
    run = runs.run(tiny_config())
    manifest = recbole_freqd.export(run.trainer.saved_model_file, "embeddings")
    explained = set(re.findall(r"`(\w+)`", DOC)) | {"format", "histories"}
    assert set(manifest) <= explained and np.load("embeddings/users.npz")["vectors"].shape[1] == 4

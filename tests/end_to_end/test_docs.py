"""README.md and docs/: every block runs, every link leads somewhere, nothing is stale."""

import importlib.util
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import torch
import yaml

import recbole_freqd
from recbole_freqd.config.models import OWN_MODELS, general_models
from recbole_freqd.core import schema as settings
from recbole_freqd.features import ADAPTERS
from recbole_freqd.features.data import pairs, tokens
from recbole_freqd.jobs import run as runs
from recbole_freqd.losses import LOSSES
from tests.jobs.test_export import hidden
from tests.support.doc_blocks import PAGES, ROOT, Newcomer, blocks_of

TEXT = {
    page.name if page.parent == ROOT else f"docs/{page.name}": page.read_text("utf-8")
    for page in PAGES
}
SMALL = {"epochs": 1, "eval_step": 1, "train_batch_size": 128, "embedding_size": 6}
QUIET = {"show_progress": False, "state": "ERROR"}
NEEDS = {"tuning": "hyperopt", "analysis": "matplotlib", "serving": "faiss"}
EXAMPLE = ROOT / "examples" / "faiss_top_k.py"


@pytest.fixture
def registries_as_they_were(monkeypatch):
    for registry in (ADAPTERS, LOSSES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(settings, "_OWN_FILES", {})


@pytest.fixture
def everything_small(tiny_data, tmp_path_factory, monkeypatch, host):
    """RecBole's defaults and those of the main job are those of one short epoch on ``tiny``."""
    import shutil

    from recbole.config.configurator import Config

    load = Config._load_internal_config_dict
    data = {"data_path": str(tiny_data), "load_col": {"inter": ["user_id", "item_id"]}}

    def with_small_defaults(self, model, model_class, dataset):
        load(self, model, model_class, dataset)
        self.internal_config_dict.update({**SMALL, **QUIET, **data})

    monkeypatch.setattr(Config, "_load_internal_config_dict", with_small_defaults)
    folder = tmp_path_factory.mktemp("small") / "properties"
    shutil.copytree(settings.properties_folder(), folder)
    job = yaml.safe_load((folder / "quick_start.yaml").read_text())
    job.update(SMALL, dataset="tiny", teacher={**job["teacher"], "epochs": 1, "eval_step": 1})
    (folder / "quick_start.yaml").write_text(yaml.safe_dump(job))
    monkeypatch.setattr(settings, "properties_folder", lambda: folder)


# --- blocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs_or_says_why_not(
    page, everything_small, registries_as_they_were, tmp_path, monkeypatch
):
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    newcomer = Newcomer(page, tmp_path, monkeypatch)
    for block in blocks_of(page):
        if "not run" in block.marks:
            assert len(block.marks["not run"]) > 10, f"{block}: not run, but why?"
        elif "run by" in block.marks:
            file, _, name = block.marks["run by"].partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), str(block)
        elif "test-command" not in block.marks:
            try:
                newcomer.run(block)
            except Exception as error:
                raise AssertionError(f"{block}: {type(error).__name__}: {error}") from error


def test_a_page_with_a_block_that_nobody_can_run_is_noticed(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    newcomer = Newcomer(page, tmp_path, monkeypatch)
    for fence, code in [
        ("bash", "tensorboard --logdir log"), ("bash", "run_recbole_freqd --no_such_option"),
        ("bash", 'pip install "recbole_freqd[none]"'), ("python", "1 / 0"), ("", "no language"),
        ("bash", "run_recbole_freqd --config_files saved/none-....yaml"),
    ]:  # fmt: skip
        page.write_text(f"```{fence}\n{code}\n```\n")
        (block,) = blocks_of(page)
        with pytest.raises((AssertionError, ZeroDivisionError)):
            newcomer.run(block)
    page.write_text("<!-- not ran: a misspelt mark -->\n```bash\nls\n```\n")
    with pytest.raises(AssertionError, match="not ran"):
        blocks_of(page)


def test_the_loss_works_without_recbole_as_written():
    from tests.support.oracles import random_interactions

    (code,) = [
        block.code
        for block in blocks_of(ROOT / "docs" / "plugging_in.md")
        if "a plain torch module" in block.code
    ]
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
    exec(compile(code, "plugging_in.md", "exec"), names)
    names["total"].backward()
    assert names["student_item_emb"].grad.abs().sum() > 0


# --- links and names -------------------------------------------------------------------------


def anchors(text):
    """The anchors that GitHub gives the headings of a page."""
    found = []
    for heading in re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M
    ):
        words = re.sub(r"\[(.*?)\]\(.*?\)|[`*]", r"\1", heading.strip().lower())
        kept = "".join(c for c in words if c in " -_" or unicodedata.category(c)[0] in "LN")
        anchor = kept.replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


@pytest.mark.parametrize(
    "page",
    [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("results/*.md")],
    ids=str,
)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", text):
        if link.startswith("../../actions/workflows/"):  # GitHub's own pages of a workflow
            name = link.removeprefix("../../actions/").removesuffix("/badge.svg")
            link = f".github/{name}"
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link} is outside of the project"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page.name}: {link}"


def test_no_box_of_a_diagram_is_named_by_a_word_of_mermaids_own():
    reserved = {"graph", "flowchart", "subgraph", "end", "style", "class", "click", "default"}
    for name, text in TEXT.items():
        for diagram in re.findall(r"^```mermaid$(.*?)^```$", text, re.M | re.S):
            boxes = re.findall(r"^ +(\w+)\[", diagram, re.M)
            assert boxes and not reserved & set(boxes), f"{name}: GitHub draws no such diagram"


def test_every_page_is_in_the_index():
    index = TEXT["docs/README.md"]
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\((\w+\.md)\)", index)) >= pages
    assert "(docs/README.md)" in TEXT["README.md"]


def test_every_option_that_a_page_names_is_the_scripts(capsys):
    from recbole_freqd.jobs.script import COMMANDS, main

    known = {"--no-deps"}
    for words in ([], *([name] for name in COMMANDS)):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        known |= set(re.findall(r"--\w+", capsys.readouterr().out))
    for name, text in TEXT.items():
        inline = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        unknown = set(re.findall(r"`(--[\w-]+)[ `]", inline)) - known
        assert not unknown, f"{name}: {unknown}"


def test_every_key_that_a_page_names_is_one():
    methods = {key for name in LOSSES.names() for key in settings.method_keys(name)}
    prefixes = "|".join(sorted({LOSSES.get(name).prefix for name in LOSSES.names()}))
    ours = methods | {f"teacher.{key}" for key in settings.read_keys("teacher.yaml")}
    of_recbole = {f"teacher.{key}" for key in settings.read_keys("recbole.yaml")} | {
        "teacher.model", "teacher.keep_every", "teacher.save_step",
    }  # fmt: skip
    for name, text in TEXT.items():
        named = set(re.findall(rf"`(?:--)?((?:(?:{prefixes})_|teacher\.)\w+)\b(?!/)", text))
        unknown = named - ours - of_recbole - {"freqd_runs", "teacher.key", "teacher.0"}
        assert not unknown, f"{name}: {unknown}"


def test_every_test_that_a_page_names_is_in_the_file_named_before_it():
    stands_for_any, wrong = "tests/test_x.py", []
    for page, text in TEXT.items():
        for line in text.replace(stands_for_any, "").splitlines():
            content = ""
            for file, test in re.findall(r"`(?:([\w/]*test_\w+\.py)|(test_\w+))`", line):
                path = ROOT / "tests" / file.removeprefix("tests/")
                if file and not path.is_file():
                    wrong.append(f"{page}: {file}")
                elif file:
                    content = path.read_text(encoding="utf-8")
                elif f"def {test}(" not in content:
                    wrong.append(f"{page}: {test}")
    assert wrong == []


# --- pages that say what the code says -------------------------------------------------------


SCRIPTS = ("make_api", "make_config", "make_picture", "make_results", "make_rows")


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_makes_of_a_page_is_what_it_makes_now(script, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # where they import each other from
    spec = importlib.util.spec_from_file_location(script, ROOT / "scripts" / f"{script}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for page, text in made.pages().items():
        assert page.read_text(encoding="utf-8") == text, f"stale: run `python scripts/{script}.py`"


def test_every_key_of_properties_is_in_the_reference_of_keys():
    files = (ROOT / "properties").rglob("*.yaml")
    for file in (file for file in files if "recipe" not in file.parts):  # these have a model's too
        for key in yaml.safe_load(file.read_text(encoding="utf-8")):
            assert f"`{key}`" in TEXT["docs/config.md"], f"{file.name}: {key}"


def test_every_method_has_a_row_with_its_prefix_in_the_table_of_methods():
    rows = dict(re.findall(r"^\| `([\w-]+)` \| `(\w+)_` \|", TEXT["docs/methods.md"], re.M))
    assert rows == {name: LOSSES.get(name).prefix for name in LOSSES.names()}
    uses = re.findall(r"^\| `([\w-]+)` \| (?!`)\S.* \| \S.* \|$", TEXT["docs/methods.md"], re.M)
    assert sorted(uses) == sorted(LOSSES.names()), "each has a use and a cost"


@pytest.mark.parametrize("name", LOSSES.names())
def test_the_example_of_a_loss_has_keys_and_values_that_are_allowed(name):
    text, prefix = LOSSES.get(name).__doc__, LOSSES.get(name).prefix
    keys = settings.method_keys(name)
    for key, value in re.findall(rf"^ +({prefix}_\w+): (\S+)$", text, re.M):
        given = keys[key].check(yaml.safe_load(value))
        if "The defaults" in text or key.endswith("_beta"):
            assert given == keys[key].default, f"{name}: {key}"


def test_the_table_of_models_has_a_row_for_every_model_and_says_what_the_adapters_say(host):
    table = TEXT["docs/models.md"].partition("<!-- table -->")[2].partition("<!-- /table -->")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    rows = {row[0]: row for row in rows[3:] if row != [""]}
    assert sorted(rows) == sorted([*general_models(), *OWN_MODELS])
    students = sum(row[3] != "no (closed form)" for row in rows.values())
    claim = f"All {len(general_models())} general recommenders of RecBole 1.2.1 can teach, and the {students} "
    assert claim in TEXT["README.md"].replace("\n", " ")
    for name, row in rows.items():
        assert row[3] == (ADAPTERS.get(name).student or "no (closed form)"), "run `make docs`"


def test_the_versions_of_the_install_page_are_those_of_setup_py():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", TEXT["docs/install.md"], re.M))
    python = re.search(r'python_requires="(.*?)"', setup)[1]
    assert rows.pop("python") == python
    assert {"torch", "numpy", "scipy", "pandas"} <= set(rows)
    for name, limits in rows.items():
        assert f'"{name}{limits}"' in setup or f"'{name}{limits};" in setup, f"{name}{limits}"
    pins = re.findall(r"install (torch==[\d.]+)", TEXT["docs/install.md"])
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert pins and set(pins) <= {line.partition(";")[0] for line in lines}
    extras = set(re.findall(r"^\| `\[(\w+)\]`", TEXT["docs/install.md"], re.M))
    assert extras == set(
        re.findall(r'^    "(\w+)": \[?', setup.partition("EXTRAS_REQUIRE")[2], re.M)
    )


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


def test_the_example_of_the_serving_page_is_that_of_the_file():
    (code,) = [
        b.code
        for b in blocks_of(ROOT / "docs" / "serving.md")
        if "import" not in b.code and "index.search" in b.code
    ]
    assert code in EXAMPLE.read_text(encoding="utf-8") and len(code.splitlines()) <= 10


def test_the_manifest_has_no_key_that_the_serving_page_does_not_explain(tiny_config):
    run = runs.run(tiny_config())
    manifest = recbole_freqd.export(run.trainer.saved_model_file, "embeddings")
    explained = set(re.findall(r"`(\w+)`", TEXT["docs/serving.md"])) | {"format", "histories"}
    assert set(manifest) <= explained and np.load("embeddings/users.npz")["vectors"].shape[1] == 4

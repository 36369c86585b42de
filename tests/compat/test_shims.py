"""compat: RecBole 1.2 runs on today's packages, and nobody else notices.

What depends on an interpreter that has imported nothing runs in a process of its own: three of
them, each started once (`virgin`, `trained`, and the reader of its checkpoint).
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path

import pytest

from recbole_freqd import compat
from recbole_freqd.compat import shims
from recbole_freqd.core.errors import CompatibilityError

ROOT = Path(compat.__file__).resolve().parents[2]
# torch, whenever it refuses one of RecBole's checkpoints
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")

SHIMS = {shim.name: shim for shim in compat.SHIMS}


def release(package):
    """Return (major, minor) of an installed package."""
    return tuple(int(part) for part in re.findall(r"\d+", version(package))[:2])


def run_python(code, folder, *arguments):
    """Run `code` in a new interpreter inside `folder`; return what it printed last, from JSON."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=folder,
        # One thread: two that wait for a busy core made the run five times slower.
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def bare():
    """The process without shims; puts them back afterwards if they were there."""
    before = compat.shims_installed()
    compat.remove_shims()
    yield
    compat.remove_shims()
    if before:
        compat.install_shims()


@pytest.fixture
def installed(bare):
    compat.install_shims()


# --- Patches ---------------------------------------------------------------------------------


class Parent:
    inherited = "parent"

    @staticmethod
    def static():
        return "old"


class Child(Parent):
    pass


class Slotted:
    __slots__ = ("empty", "filled")

    def __init__(self):
        self.filled = "old"


def a_module():
    module = types.ModuleType("a_module")
    module.kept = "old"
    return module


@pytest.mark.parametrize(
    ("owner", "present", "absent"),
    [
        (a_module(), "kept", "added"),
        (Parent, "static", "added"),
        (types.SimpleNamespace(kept="old"), "kept", "added"),
        (Slotted(), "filled", "empty"),
    ],
    ids=["module", "class", "object", "slots"],
)
def test_undo_restores_values_and_absences(owner, present, absent):
    old = getattr(owner, present)
    patches = compat.Patches()
    patches.set(owner, present, "new")
    patches.set(owner, absent, "new")
    assert (getattr(owner, present), getattr(owner, absent)) == ("new", "new")
    patches.undo()
    assert getattr(owner, present) is old
    assert not hasattr(owner, absent)


def test_undo_gives_an_inherited_attribute_back_to_the_parent():
    patches = compat.Patches()
    patches.set(Child, "inherited", "child")
    patches.undo()
    assert "inherited" not in vars(Child)
    assert Child.inherited == "parent"


def test_undo_keeps_a_static_method_static():
    patches = compat.Patches()
    patches.set(Parent, "static", lambda: "new")
    patches.undo()
    assert isinstance(vars(Parent)["static"], staticmethod)
    assert Parent().static() == "old"


def test_undo_unwinds_two_patches_of_one_name():
    owner = types.SimpleNamespace(value=0)
    patches = compat.Patches()
    patches.set(owner, "value", 1)
    patches.set(owner, "value", 2)
    patches.undo()
    assert owner.value == 0


def test_undo_leaves_alone_what_somebody_else_patched_since():
    owner = types.SimpleNamespace(ours=0, theirs=0, deleted=0)
    patches = compat.Patches()
    for name in vars(owner):
        patches.set(owner, name, object())
    owner.theirs = "theirs"
    del owner.deleted
    patches.undo()
    assert vars(owner) == {"ours": 0, "theirs": "theirs"}


def test_undoing_twice_undoes_once():
    owner = types.SimpleNamespace(value=0)
    patches = compat.Patches()
    patches.set(owner, "value", 1)
    patches.undo()
    owner.value = 1
    patches.undo()
    assert owner.value == 1


# --- a virgin interpreter --------------------------------------------------------------------

VIRGIN = '''
import json, sys
from recbole_freqd import compat
from recbole_freqd.compat import shims
said = {"imported": [m for m in ("numpy", "pandas", "ray", "recbole", "scipy", "torch")
                     if m in sys.modules]}
import numpy as np, torch, scipy.sparse
aliases = list(shims._NUMPY_ALIASES)

def state():
    tuning = sys.modules.get("recbole.trainer.hyper_tuning")
    return [[id(vars(np).get(name)) for name in aliases], id(torch.load),
            "_update" in vars(scipy.sparse.dok_matrix), tuning is None or tuning.np is np]

before = state()
said["numpy_missing"] = shims._missing_numpy_aliases()
said["needed"] = {shim.name: shim.needed() for shim in compat.SHIMS}
said["patched_by_needed"] = state() != before

class Watch:
    """Notes what is imported while something called ray is there."""
    seen = []
    def find_spec(name, *_):
        if "ray" in sys.modules:
            Watch.seen.append(name)

sys.meta_path.insert(0, Watch)
compat.install_shims()
sys.meta_path.remove(Watch)
said["met_the_stub"] = Watch.seen
said["ray_loaded"] = any(m.partition(".")[0] == "ray" for m in sys.modules)
said["quick_start"] = "recbole.quick_start.quick_start" in sys.modules
said["installed"], once = compat.shims_installed(), state()
compat.install_shims()
said["second_install_is_silent"] = state() == once and compat.shims_installed() == said["installed"]
compat.remove_shims()
said["restored"] = state() == before and compat.shims_installed() == ()
said["quick_start_stays"] = "recbole.quick_start.quick_start" in sys.modules

# What RecBole does by itself. Last, because a working ray now gets imported.
for name in [m for m in sys.modules if m.startswith("recbole.quick_start")]:
    del sys.modules[name]
try:
    import recbole.quick_start
    said["bare_quick_start"] = "loads ray" if "ray" in sys.modules else "fine"
except Exception as exc:
    said["bare_quick_start"] = "fails"
print(); print(json.dumps(said))
'''


@pytest.fixture(scope="module")
def virgin(tmp_path_factory):
    return run_python(VIRGIN, tmp_path_factory.mktemp("virgin"))


def test_importing_compat_imports_no_other_package(virgin):
    assert virgin["imported"] == []


def test_asking_what_is_needed_patches_nothing(virgin):
    assert not virgin["patched_by_needed"]


@pytest.mark.parametrize(
    ("shim", "package", "broken_since"),
    [
        ("numpy-aliases", "numpy", (1, 24)),
        ("dok-update", "scipy", (1, 13)),
        ("torch-load", "torch", (2, 6)),
        ("lengths-of-lists", "pandas", (3, 0)),
    ],
)
def test_a_shim_is_needed_exactly_since_the_release_that_broke_recbole(
    virgin, shim, package, broken_since
):
    assert virgin["needed"][shim] == (release(package) >= broken_since)


def test_numpy_2_lacks_the_names_that_config_needs(virgin):
    gone = {"float_", "complex_", "unicode_"} & set(virgin["numpy_missing"])
    assert len(gone) == (3 if release("numpy") >= (2, 0) else 0)


def test_numpys_own_bool_and_long_are_kept(virgin):
    own = release("numpy") >= (2, 0)
    assert {"bool", "long"}.isdisjoint(virgin["numpy_missing"]) == own


def test_recbole_by_itself_still_imports_ray_or_fails_over_it(virgin):
    assert virgin["needed"]["ray"]
    assert virgin["bare_quick_start"] in ("fails", "loads ray")


def test_installing_imports_quick_start_and_not_ray(virgin):
    assert virgin["quick_start"]
    assert not virgin["ray_loaded"]


def test_nothing_but_quick_start_meets_the_ray_stub(virgin):
    assert virgin["met_the_stub"] == ["recbole.quick_start", "recbole.quick_start.quick_start"]


def test_exactly_the_needed_shims_are_installed(virgin):
    assert virgin["installed"] == [name for name, needed in virgin["needed"].items() if needed]


def test_a_second_install_does_nothing(virgin):
    assert virgin["second_install_is_silent"]


def test_remove_restores_everything_but_the_imported_quick_start(virgin):
    assert virgin["restored"]
    assert virgin["quick_start_stays"]


# --- RecBole end to end ----------------------------------------------------------------------

TRAIN = """
import json, sys
from recbole_freqd.compat import install_shims
install_shims()
from recbole.quick_start import run_recbole
result = run_recbole(model="LightGCN", dataset="tiny", saved=True,
                     config_dict={"epochs": 1, "show_progress": False, "load_col": None,
                                  "data_path": sys.argv.pop()})
print(); print(json.dumps([dict(result["test_result"]), "ray" in sys.modules]))
"""

LOAD = """
import glob, json
from recbole_freqd.compat import install_shims
install_shims()
from recbole.quick_start import load_data_and_model
from recbole.utils import get_trainer
[checkpoint] = glob.glob("saved/LightGCN-*.pth")
config, model, _, _, _, test_data = load_data_and_model(checkpoint)
trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
result = trainer.evaluate(test_data, load_best_model=False, show_progress=False)
print(); print(json.dumps(dict(result)))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_data):
    folder = tmp_path_factory.mktemp("trained")
    result, ray_loaded = run_python(TRAIN, folder, str(tiny_data))
    return folder, result, ray_loaded


def test_run_recbole_trains_saves_reloads_and_evaluates(trained):
    folder, result, ray_loaded = trained
    assert len(list(folder.glob("saved/LightGCN-*.pth"))) == 1
    assert result["ndcg@10"] > 0
    assert not ray_loaded


def test_another_process_reads_the_checkpoint_and_scores_the_same(trained):
    folder, result, _ = trained
    assert run_python(LOAD, folder) == pytest.approx(result)


# --- each shim -------------------------------------------------------------------------------


NOT_REPORTED = {  # as far as we have found
    *("fill-in-place", "lengths-of-lists", "log-encoding", "folders-of-two-processes"),
}


def test_every_shim_says_why_and_where_it_was_reported():
    assert len(SHIMS) == len(compat.SHIMS)
    for shim in compat.SHIMS:
        assert shim.why
        assert all(re.fullmatch(r"#\d+", issue) for issue in shim.issues)
        assert bool(shim.issues) != (shim.name in NOT_REPORTED)
        with pytest.raises(dataclasses.FrozenInstanceError):
            shim.name = "other"


# What Config.compatibility_settings sets, and what it sets them from.
NUMPY_NAMES = {
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "object": object,
    "str": str,
    "long": int,
    "unicode": str,
    "float_": float,
    "complex_": complex,
    "unicode_": str,
}


def test_numpy_has_every_alias_of_the_right_kind(installed):
    import numpy as np

    assert set(shims._NUMPY_ALIASES) == set(NUMPY_NAMES)
    for alias, kind in NUMPY_NAMES.items():
        assert np.dtype(getattr(np, alias)).kind == np.dtype(kind).kind


def test_dok_matrix_takes_many_entries_at_once(installed):
    from scipy.sparse import dok_matrix

    matrix = dok_matrix((2, 3), dtype="float32")
    matrix._update({(0, 1): 1.0, (1, 2): 2.0})
    assert matrix.tocsr().toarray().tolist() == [[0, 1, 0], [0, 0, 2]]


@pytest.fixture
def checkpoint(tmp_path):
    """A file with an object in it, saved the way RecBole saves."""
    import torch

    path = tmp_path / "checkpoint.pth"
    torch.save({"config": types.SimpleNamespace(a=1)}, path, pickle_protocol=4)
    return path


def load_from(module, path, **kwargs):
    """Call torch.load from a module of that name."""
    namespace = types.ModuleType(module).__dict__
    exec("import torch\ndef read(path, **kw): return torch.load(path, **kw)", namespace)
    return namespace["read"](path, **kwargs)


since_torch_2_6 = pytest.mark.skipif(
    release("torch") < (2, 6), reason="before 2.6 torch loads objects by default"
)


@pytest.mark.parametrize("module", ["recbole", "recbole.something", "recbole.trainer.trainer"])
def test_recbole_loads_objects(installed, checkpoint, module):
    assert load_from(module, checkpoint)["config"].a == 1


@since_torch_2_6
@pytest.mark.parametrize(
    "module", ["recbole_freqd.checkpoint.loading", "recbole_gnn.x", "recboles", "x"]
)
def test_other_modules_keep_the_safe_default(installed, checkpoint, module):
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_from(module, checkpoint)


@since_torch_2_6
def test_user_code_keeps_the_safe_default(installed, checkpoint):
    import torch

    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(checkpoint)
    assert torch.load(checkpoint, weights_only=False)["config"].a == 1


def test_recbole_can_still_ask_for_weights_only(installed, checkpoint):
    with pytest.raises(pickle.UnpicklingError):
        load_from("recbole.something", checkpoint, weights_only=True)


@since_torch_2_6
def test_recbole_cannot_load_objects_once_the_shims_are_removed(bare, checkpoint):
    with pytest.raises(pickle.UnpicklingError):
        load_from("recbole.something", checkpoint)


def forget(monkeypatch, package):
    """Drop a package from sys.modules until the end of the test."""
    for name in [m for m in sys.modules if m == package or m.startswith(package + ".")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def make_package(monkeypatch, tmp_path):
    """Return a function that writes an importable package, which shadows an installed one."""
    made = []

    def make(package, files):
        for name, text in files.items():
            path = tmp_path / "site" / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        forget(monkeypatch, package)
        monkeypatch.syspath_prepend(tmp_path / "site")
        made.append(package)

    yield make
    for package in made:
        for name in [m for m in sys.modules if m.partition(".")[0] == package]:
            del sys.modules[name]


@pytest.fixture
def quick_start(monkeypatch, installed):
    """Return a function that imports RecBole's quick_start anew, through the shim."""
    import recbole
    import recbole.quick_start

    def import_again():
        forget(monkeypatch, "recbole.quick_start")
        assert SHIMS["ray"].needed()
        SHIMS["ray"].apply(compat.Patches())
        return sys.modules["recbole.quick_start.quick_start"]

    monkeypatch.setattr(recbole, "quick_start", recbole.quick_start)
    return import_again


def test_a_broken_ray_does_not_matter(make_package, quick_start):
    make_package("ray", {"__init__.py": "raise AttributeError('numpy has no bool8')"})
    host = quick_start()
    assert callable(host.run_recbole)
    assert "ray" not in sys.modules
    assert host.tune.report(recall=0.5) is None
    with pytest.raises(ImportError, match=r"ray\.tune\.choice .* numpy has no bool8"):
        _ = host.tune.choice


def test_a_missing_ray_does_not_matter(monkeypatch, quick_start):
    forget(monkeypatch, "ray")
    monkeypatch.setitem(sys.modules, "ray", None)  # Python's way to forbid an import
    host = quick_start()
    assert sys.modules["ray"] is None
    assert host.tune.report(recall=0.5) is None


def test_a_working_ray_is_imported_at_first_use_and_reported_to(make_package, quick_start):
    tune = "seen = []\ndef choice(values): return values\ndef report(**r): seen.append(r)\n"
    make_package("ray", {"__init__.py": "", "tune.py": tune})
    host = quick_start()
    assert host.tune.report(recall=0.5) is None
    assert "ray" not in sys.modules
    assert host.tune.choice([1]) == [1]
    host.tune.report(recall=0.7)
    assert sys.modules["ray.tune"].seen == [{"recall": 0.7}]


def test_a_ray_that_is_already_loaded_stays_the_loaded_one(monkeypatch, quick_start):
    forget(monkeypatch, "ray")
    theirs = types.ModuleType("ray")
    monkeypatch.setitem(sys.modules, "ray", theirs)
    quick_start()
    assert sys.modules["ray"] is theirs
    assert "ray.tune" not in sys.modules


def test_the_ray_shim_rests_once_quick_start_is_imported(installed):
    assert not SHIMS["ray"].needed()


HYPEROPT = {
    "__init__.py": "",
    "base.py": "def miscs_update_idxs_vals(*args): pass",
    "pyll/__init__.py": """
from .stochastic import randint
def rec_eval(expression, memo): return {"a": [0]}, {"a": [int(randint(memo["rng"])[0])]}
""",
}


@pytest.mark.parametrize(
    ("draw", "needed"), [("rng.integers(0, 4, 1)", True), ("rng.randint(0, 4, 1)", False)]
)
def test_exhaustive_search_draws_with_any_hyperopt(bare, make_package, draw, needed):
    make_package(
        "hyperopt",
        {**HYPEROPT, "pyll/stochastic.py": f"def randint(rng): return {draw}"},
    )
    assert SHIMS["exhaustive-search"].needed() == needed
    assert "hyperopt" not in sys.modules  # asking is cheap
    from recbole.trainer.hyper_tuning import exhaustive_search

    domain = types.SimpleNamespace(
        s_idxs_vals=None, s_new_ids="ids", s_rng="rng", new_result=dict, cmd=None, workdir=None
    )
    trials = types.SimpleNamespace(trials=[], new_trial_docs=lambda ids, *_: ids)
    if needed:
        with pytest.raises(AttributeError, match="integers"):
            exhaustive_search([0], domain, trials, seed=1)
    compat.install_shims()
    assert ("exhaustive-search" in compat.shims_installed()) == needed
    assert exhaustive_search([0], domain, trials, seed=1) == [0]


def test_exhaustive_search_visits_every_point_with_the_installed_hyperopt(installed):
    pytest.importorskip("hyperopt")
    from recbole.trainer import HyperTuning

    def objective(point, _):
        score = point["a"] * point["b"]
        return {
            "model": "x",
            "best_valid_score": score,
            "valid_score_bigger": True,
            "best_valid_result": {},
            "test_result": {},
        }

    space = {"choice": {"a": [1, 2], "b": [3, 4]}}
    tuning = HyperTuning(objective, params_dict=space, algo="exhaustive", early_stop=100)
    tuning.run()
    assert sorted(tuning.score_list) == [3, 4, 6, 8]
    assert tuning.best_params == {"a": 2, "b": 4}


# --- the host is checked first ---------------------------------------------------------------


def refused(match):
    with pytest.raises(CompatibilityError, match=match):
        compat.install_shims()
    assert compat.shims_installed() == ()


def test_a_missing_recbole_is_answered_with_the_pip_command(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "recbole", None)
    refused(r"not installed.*pip install .*pip install --no-deps recbole==1\.2\.1")


@pytest.mark.parametrize("found", ["1.1.1", "1.20.0", "2.0.0"])
def test_another_recbole_is_refused(bare, monkeypatch, found):
    monkeypatch.setattr("recbole.__version__", found)
    refused(rf"RecBole 1\.2\.\*, found version {re.escape(found)}")


def test_a_folder_that_only_looks_like_recbole_is_refused(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "recbole", types.ModuleType("recbole"))
    refused("found version unknown")


@pytest.mark.parametrize("found", ["4.0.0", "4.1.2", "5.0.0rc1"])
def test_a_pandas_that_nobody_has_tried_is_refused_with_the_reason(bare, monkeypatch, found):
    monkeypatch.setattr("pandas.__version__", found)
    refused(rf'pandas {re.escape(found)} is untried: .*silently.*pip install "pandas<4"')


@pytest.mark.parametrize("found", ["2.0.3", "2.3.3", "3.0.0", "3.9.1"])
def test_pandas_2_and_3_are_taken(bare, monkeypatch, found):
    monkeypatch.setattr("pandas.__version__", found)
    compat.install_shims()
    assert "fill-in-place" in compat.shims_installed()


@pytest.mark.parametrize(
    ("raised", "seen", "match"),
    [
        (
            ModuleNotFoundError("No module named 'colorlog'", name="colorlog"),
            CompatibilityError,
            "RecBole needs colorlog, which is not installed",
        ),
        (ZeroDivisionError("as it came"), ZeroDivisionError, "as it came"),
    ],
)
def test_after_a_failure_nothing_stays_half_installed(bare, monkeypatch, raised, seen, match):
    owner = types.SimpleNamespace()

    def fails(patches):
        patches.set(owner, "half", "done")
        raise raised

    broken = compat.Shim("broken", ("#1",), "why", lambda: True, fails)
    monkeypatch.setattr(compat, "SHIMS", (*compat.SHIMS, broken))
    with pytest.raises(seen, match=match):
        compat.install_shims()
    assert compat.shims_installed() == ()
    assert vars(owner) == {}


# --- fresh_log_handlers ----------------------------------------------------------------------


@pytest.fixture
def folder(monkeypatch, tmp_path, installed):
    """An empty folder to log into."""
    monkeypatch.chdir(tmp_path)
    # It would wrap sys.stdout for the rest of the process.
    monkeypatch.setattr("recbole.utils.logger.init", lambda **_: None)


@contextlib.contextmanager
def empty_root():
    """The root logger without handlers. No fixture: pytest adds its own after the fixtures."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield root
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = kept
        root.setLevel(level)


def test_a_stream_that_another_program_has_set_stays_where_it_is(monkeypatch, installed):
    pytest.importorskip("recbole.utils.logger")
    from colorama import initialise

    ours, wrapped, other = io.StringIO(), io.StringIO(), io.StringIO()
    monkeypatch.setattr(initialise, "orig_stdout", ours)
    monkeypatch.setattr(initialise, "wrapped_stdout", wrapped)
    monkeypatch.setattr(sys, "stdout", other)
    compat.fresh_log_handlers()
    assert sys.stdout is other
    monkeypatch.setattr(sys, "stdout", wrapped)
    compat.fresh_log_handlers()
    assert sys.stdout is ours


class FakeConfig(dict):
    final_config_dict: dict = {}  # noqa: RUF012


def start_run(model):
    from recbole.utils import init_logger

    init_logger(FakeConfig(model=model, dataset="ml-100k", state=None))


def text_of(model):
    return "".join(p.read_text() for p in Path("log", model).glob("*.log"))


def test_by_itself_recbole_logs_the_second_run_into_the_first_ones_file(folder):
    with empty_root() as root:
        start_run("BPR")
        start_run("LightGCN")
        root.info("second")
    assert "second" in text_of("BPR")
    assert text_of("LightGCN") == ""


def test_with_fresh_handlers_each_run_logs_into_its_own_file(folder):
    with empty_root() as root:
        for model in ("BPR", "LightGCN"):
            compat.fresh_log_handlers()
            start_run(model)
            root.info("this is %s", model)
        assert len(root.handlers) == 2
    assert [text_of(model).count("this is") for model in ("BPR", "LightGCN")] == [1, 1]
    assert text_of("LightGCN").endswith("this is LightGCN\n")


def test_recboles_files_are_closed(folder):
    with empty_root() as root:
        start_run("BPR")
        [file] = [h for h in root.handlers if isinstance(h, logging.FileHandler)]
        compat.fresh_log_handlers()
        assert root.handlers == []
    assert file.stream is None


def test_handlers_of_others_are_never_removed(folder, caplog):
    import colorlog
    from recbole.utils.logger import RemoveColorFilter, log_colors_config

    console = logging.StreamHandler()
    console.setFormatter(colorlog.ColoredFormatter(log_colors=dict(log_colors_config)))
    subclass = type("Mine", (logging.StreamHandler,), {})()
    subclass.setFormatter(colorlog.ColoredFormatter(log_colors=log_colors_config))
    file = logging.FileHandler("mine.log")
    file.addFilter(RemoveColorFilter())  # RecBole's filter in a file of the user's
    foreign = [logging.StreamHandler(), console, subclass, file, caplog.handler]
    with empty_root() as root:
        start_run("BPR")
        root.handlers[1:1] = foreign
        compat.fresh_log_handlers()
        assert root.handlers == foreign
        assert file.stream is not None


def test_nothing_happens_before_recbole_is_imported(folder, monkeypatch):
    with empty_root() as root:
        start_run("BPR")
        handlers = root.handlers[:]
        monkeypatch.delitem(sys.modules, "recbole.utils.logger")
        compat.fresh_log_handlers()
        assert root.handlers == handlers

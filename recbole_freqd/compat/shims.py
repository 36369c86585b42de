"""The breaks of RecBole 1.2 on today's packages, and its own faults, each with its repair.

A shim first tests whether the installed packages need it, so it goes quiet once they no longer do.
The issue numbers are those of https://github.com/RUCAIBox/RecBole.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_freqd.compat import faults, frames
from recbole_freqd.compat.logs import apply_log_encoding, logs_by_locale
from recbole_freqd.compat.patches import Overlay, Patches


@dataclass(frozen=True)
class Shim:
    """One break of RecBole 1.2 and its repair.

    Attributes:
        name: Short name, as `shims_installed` reports it.
        issues: RecBole issues and pull requests about it; empty where we have found none.
        why: What breaks without it.
        needed: Feature test: True if the installed packages need it. Meaningful before the shim is
            applied; some answer False once it is in place.
        apply: Applies it through the given `Patches`.
    """

    name: str
    issues: tuple[str, ...]
    why: str
    needed: Callable[[], bool]
    apply: Callable[[Patches], None]


# numpy: alias -> what it stood for
_NUMPY_ALIASES = {
    "float_": "float64",
    "complex_": "complex128",
    "unicode_": "str_",
    "bool": "bool_",
    "int": "int_",
    "float": "float64",
    "complex": "complex128",
    "object": "object_",
    "str": "str_",
    "long": "int_",
    "unicode": "str_",
}


def _missing_numpy_aliases() -> list[str]:
    import numpy as np

    with warnings.catch_warnings():
        # numpy 1.24-1.26 warn about some of these names when asked for them.
        warnings.simplefilter("ignore")
        return [alias for alias in _NUMPY_ALIASES if not hasattr(np, alias)]


def _apply_numpy_aliases(patches: Patches) -> None:
    import numpy as np

    # Only absent names: numpy 2 has its own bool and long.
    for alias in _missing_numpy_aliases():
        patches.set(np, alias, getattr(np, _NUMPY_ALIASES[alias]))


def _dok_update_missing() -> bool:
    from scipy.sparse import dok_matrix

    return not hasattr(dok_matrix, "_update")


def _apply_dok_update(patches: Patches) -> None:
    from scipy.sparse import dok_matrix

    def _update(self: Any, data: dict) -> None:
        """Write `{(row, column): value}` without the checks of `__setitem__`."""
        self._dict.update(data)

    patches.set(dok_matrix, "_update", _update)


def _load_refuses_objects() -> bool:
    import torch

    checkpoint = io.BytesIO()
    # Like RecBole's own: an object that is no tensor, at the protocol its trainer uses.
    torch.save({"config": types.SimpleNamespace()}, checkpoint, pickle_protocol=4)
    checkpoint.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.4 and 2.5 announce the new default here
        try:
            torch.load(checkpoint)
        except Exception:
            return True
    return False


def _apply_torch_load(patches: Patches) -> None:
    import torch

    original = torch.load

    @functools.wraps(original)
    def load(*args: Any, **kwargs: Any) -> Any:
        # By caller, not globally: loading a checkpoint this way runs code that is in it. RecBole
        # cannot read its own files otherwise; everybody else keeps torch's safe default.
        caller = sys._getframe(1).f_globals.get("__name__") or ""
        if "weights_only" not in kwargs and (caller == "recbole" or caller.startswith("recbole.")):
            # Imported late: it needs torch, and compat repairs NumPy before that is imported.
            from recbole_freqd.checkpoint.loading import check_whole, load_plain

            if caller.startswith("recbole.model."):
                # NeuMF, ConvNCF, NAIS and RaCT read files that their config names, and that config
                # may have come out of somebody's checkpoint.
                return load_plain(*args, **kwargs)
            if args:
                check_whole(args[0])
            kwargs["weights_only"] = False
        return original(*args, **kwargs)

    patches.set(torch, "load", load)


class _LazyTune(types.ModuleType):
    """Stands in for `ray.tune` in recbole.quick_start; imports the real one at first use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # RecBole reports every trial to ray. A process that never imported ray is no ray worker:
        # there is nobody to report to, and no reason to import ray (1 to 2 s) to find that out.
        if name == "report" and sys.modules.get("ray") is None:
            return lambda *args, **kwargs: None
        try:
            tune = importlib.import_module("ray.tune")
        except Exception as exc:  # a broken ray raises anything, e.g. AttributeError
            raise ImportError(f"ray.tune.{name} was asked for, but ray.tune: {exc}") from exc
        return getattr(tune, name)


def _quick_start_not_imported() -> bool:
    return "recbole.quick_start.quick_start" not in sys.modules


def _import_quick_start_without_ray(_: Patches) -> None:
    # What quick_start imports besides ray comes first, so that no other package meets the stub.
    for name in ("recbole.config", "recbole.data", "recbole.trainer", "recbole.utils"):
        importlib.import_module(name)
    stub, tune = types.ModuleType("ray"), _LazyTune("ray.tune")
    stub.__path__ = []  # a package, so that `import ray.tune` works as well
    stub.tune = tune  # type: ignore[attr-defined]
    stubs = {"ray": stub, "ray.tune": tune}
    saved = {name: sys.modules[name] for name in stubs if name in sys.modules}
    sys.modules.update(stubs)
    try:
        importlib.import_module("recbole.quick_start")
    finally:
        for name in stubs:
            del sys.modules[name]
        sys.modules.update(saved)


def _hyperopt_wants_integers() -> bool:
    spec = importlib.util.find_spec("hyperopt")  # does not import it
    if spec is None or not spec.submodule_search_locations:
        return False
    sampler = Path(spec.submodule_search_locations[0], "pyll", "stochastic.py")
    if not sampler.is_file() or "rng.integers(" not in sampler.read_text(encoding="utf-8"):
        return False  # hyperopt 0.2.5, the one that RecBole pins, is happy with a RandomState
    from recbole.trainer.hyper_tuning import exhaustive_search

    return "RandomState" in exhaustive_search.__code__.co_names


def _apply_exhaustive_search(patches: Patches) -> None:
    import numpy as np
    from recbole.trainer import hyper_tuning

    class RandomState(np.random.RandomState):
        """The old generator with the one method of the new that hyperopt misses in it."""

        integers = np.random.RandomState.randint

    random = Overlay(np.random, RandomState=RandomState)
    patches.set(hyper_tuning, "np", Overlay(np, random=random))


# In this order: numpy's names before anything of RecBole is imported.
SHIMS: tuple[Shim, ...] = (
    Shim(
        name="numpy-aliases",
        issues=("#2215", "#1604", "#1714", "#2187"),
        why="numpy 2 lost float_, complex_ and unicode_ (no Config can be built), numpy 1.24 lost "
        "float, bool, ...: a process that loads a model and builds no Config fails on them",
        needed=lambda: bool(_missing_numpy_aliases()),
        apply=_apply_numpy_aliases,
    ),
    Shim(
        name="dok-update",
        issues=("#2034", "#2090", "#2185", "#2187"),
        why="scipy 1.13 lost dok_matrix._update: LightGCN, NGCF, NCL, GCMC and SpectralCF fail",
        needed=_dok_update_missing,
        apply=_apply_dok_update,
    ),
    Shim(
        name="torch-load",
        issues=("#2215", "#2212", "#2219", "#2187"),
        why="torch 2.6 loads weights only by default: RecBole cannot read its own checkpoints",
        needed=_load_refuses_objects,
        apply=_apply_torch_load,
    ),
    Shim(
        name="ray",
        issues=("#2174", "#1820", "#2187"),
        why="recbole.quick_start imports ray: missing on Python 3.12+, broken by numpy 2 and by "
        "setuptools 81, slow where it works",
        needed=_quick_start_not_imported,
        apply=_import_quick_start_without_ray,
    ),
    Shim(
        name="exhaustive-search",
        issues=("#1081", "#1240", "#1320", "#1354", "#1868"),
        why="hyperopt 0.2.7+ draws with Generator.integers, RecBole hands it a RandomState",
        needed=_hyperopt_wants_integers,
        apply=_apply_exhaustive_search,
    ),
    Shim(
        name="fill-in-place",
        issues=(),
        why="RecBole fills missing values by fillna(inplace=True) on a column, which does nothing "
        "under copy-on-write (all of pandas 3): missing tokens silently become wrong ids",
        needed=frames.fills_in_place,
        apply=frames.apply_fill,
    ),
    Shim(
        name="lengths-of-lists",
        issues=(),
        why="RecBole asks for the length of each list by Series.agg(len), which in pandas 3 is the "
        "length of the column: no token_seq can be read, and sequences get wrong lengths",
        needed=frames.agg_is_of_the_column,
        apply=frames.apply_agg,
    ),
    Shim(
        name="generators-of-loaders",
        issues=("#1697",),
        why="save_dataloaders leaves the loaders without their random generators: the run that "
        "saves them draws other batches than the one that loads them, and cannot be resumed",
        needed=faults.saving_takes_generators,
        apply=faults.apply_generators,
    ),
    Shim(
        name="metrics-of-the-catalogue",
        issues=("#2131", "#2191"),
        why="the collector moves everything to the CPU, numbers and counters too: ItemCoverage, "
        "GiniIndex, AveragePopularity and TailPercentage fail",
        needed=faults.collector_wants_tensors,
        apply=faults.apply_collector,
    ),
    Shim(
        name="log-encoding",
        issues=(),
        why="RecBole logs in the encoding of the locale: every line with a name that it lacks is "
        "lost, and a traceback printed in its place",
        needed=logs_by_locale,
        apply=apply_log_encoding,
    ),
    Shim(
        name="folders-of-two-processes",
        issues=(),
        why="ensure_dir asks for a folder and then makes it: where two processes start together, "
        "one fails, since log/ or saved/ exists by then",
        needed=faults.ensure_dir_races,
        apply=faults.apply_ensure_dir,
    ),
)

"""Make RecBole 1.2 run on today's numpy, scipy, pandas and torch, with or without ray.

RecBole 1.2.1 is from 2023 and no release since has mended it. Nothing is patched by importing this
package (it imports no package but our own): `install_shims` patches, `remove_shims` takes
everything back.
"""

from __future__ import annotations

import importlib

from recbole_freqd.compat.logs import brief_console, fresh_log_handlers
from recbole_freqd.compat.patches import Patches
from recbole_freqd.compat.processes import one_of_many
from recbole_freqd.compat.shims import SHIMS, Shim
from recbole_freqd.core.errors import CompatibilityError

__all__ = [
    "SHIMS",
    "Patches",
    "Shim",
    "brief_console",
    "fresh_log_handlers",
    "install_shims",
    "one_of_many",
    "remove_shims",
    "shims_installed",
]

_INSTALL_RECBOLE = (
    'pip install "recbole==1.2.1"; on Python 3.12 and later, where its ray pin cannot be met, '
    "pip install --no-deps recbole==1.2.1 (recbole_freqd brings the other requirements)"
)

_NEWEST_PANDAS = 3

_patches = Patches()
_installed: list[str] = []


def _check_host() -> None:
    """Raise CompatibilityError unless this is RecBole 1.2 on a pandas that it works with."""
    try:
        recbole = importlib.import_module("recbole")
    except ModuleNotFoundError as exc:
        raise CompatibilityError(
            f"RecBole is not installed. Install it: {_INSTALL_RECBOLE}"
        ) from exc
    version = str(getattr(recbole, "__version__", "unknown"))
    if version.split(".")[:2] != ["1", "2"]:
        raise CompatibilityError(
            f"recbole_freqd works with RecBole 1.2.*, found version {version} in "
            f"{list(getattr(recbole, '__path__', []))}. Install: {_INSTALL_RECBOLE}"
        )
    pandas = importlib.import_module("pandas")
    if int(pandas.__version__.split(".")[0]) > _NEWEST_PANDAS:
        raise CompatibilityError(
            f"pandas {pandas.__version__} is untried: new releases of pandas have broken RecBole's "
            f"reading of data silently. Allowed: pandas < {_NEWEST_PANDAS + 1}: pip install "
            f'"pandas<{_NEWEST_PANDAS + 1}"'
        )


def install_shims() -> None:
    """Check RecBole and pandas, then apply every shim that the installed packages need.

    Imports recbole.quick_start (about 3 s). A second call does nothing.

    Raises:
        CompatibilityError: RecBole is missing or not 1.2.*, pandas is newer than what was tried,
            or a requirement of RecBole is missing.
    """
    if _installed:
        return
    try:
        _check_host()
        for shim in SHIMS:
            if shim.needed():
                shim.apply(_patches)
                _installed.append(shim.name)
    except BaseException as exc:
        remove_shims()
        if isinstance(exc, ModuleNotFoundError):
            raise CompatibilityError(
                f"RecBole needs {exc.name}, which is not installed. `pip show recbole` lists its "
                "requirements; all but ray are used (pip install --no-deps brings none of them)"
            ) from exc
        raise


def remove_shims() -> None:
    """Undo `install_shims`; recbole.quick_start stays imported."""
    _patches.undo()
    _installed.clear()


def shims_installed() -> tuple[str, ...]:
    """Return the names of the shims in place, in the order of `SHIMS`."""
    return tuple(_installed)

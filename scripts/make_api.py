"""Writes docs/api.md: every public name, how stable it is, and the first line of its docstring.

python scripts/make_api.py           # part of: make docs
"""

import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
# The only place of these words. What is in `__all__` of a module and not here is an error.
STABILITY = {
    "recbole_freqd": {
        "stable": "FDLoss FreqDError FreqDLoss FreqDTrainer compare export extract_features "
        "load_checkpoint register run_recbole_freqd unregister",
        "provisional": "fold_in recommend",
    },
    "recbole_freqd.losses": {
        "stable": "FDLoss FreqDLoss LOSSES",
        "provisional": "CDLoss DCDLoss DELoss DistillationLoss FTDLoss FitNetLoss HTDLoss "
        "HetCompLoss KDLoss RCEKDLoss RDLoss RRDLoss UnKDLoss VkDLoss as_rows own_method",
        "experimental": "FreqRankLoss",
    },
    "recbole_freqd.features": {
        "stable": "extract_features",
        "provisional": "ADAPTERS EmbeddingTables FeatureAdapter PropagatedEmbeddings adapts",
        "experimental": "FeatureRows StudentRanker adapter_of check_teacher closed_form_error "
        "registered_adapter shared_features student_adapter",
    },
    "recbole_freqd.trainer": {
        "stable": "FreqDTrainer",
        "provisional": "DistillationTrainer dispatching",
    },
    "recbole_freqd.graph": {
        "provisional": "Adjacency EntityGraph cooccurrence_graph cosine_graph",
    },
}
INTRO = """# API

<!-- Made by scripts/make_api.py from the docstrings: change those, then `make docs`. -->

These are the public names. Anything else is internal and may change at any time. The site (`make site`)
shows the signature and the whole docstring of each name below its table; on GitHub a name leads to its
source.

| word | what you can rely on |
| --- | --- |
| stable | a change comes with a warning one release before, and a line in [CHANGELOG.md](../CHANGELOG.md) |
| provisional | a change comes with a line in [CHANGELOG.md](../CHANGELOG.md) |
| experimental | it may change or go in any release |

The keys of a config ([config.md](config.md)) and the names of the trainers are stable.
"""
# Names whose type has a docstring that says nothing of them.
WHAT = {
    "LOSSES": "The registry of distillation losses: name in `trainer:` → class.",
    "ADAPTERS": "The registry of adapters: RecBole model → how its features are read.",
}


def pages() -> dict[Path, str]:
    """docs/api.md, the whole of it.

    Raises:
        RuntimeError: A public name has no word, or a word has no public name.
    """
    return {PAGE: INTRO + "".join(_section(module) for module in STABILITY)}


def _section(module: str) -> str:
    """The table of one module."""
    words = {name: word for word, names in STABILITY[module].items() for name in names.split()}
    home = import_module(module)
    public = set(home.__all__) - {"__version__"}
    if public != set(words):
        different = ", ".join(sorted(public ^ set(words)))
        raise RuntimeError(f"{module}: STABILITY and __all__ differ in {different}")
    rows = ["| name | stability | |", "| --- | --- | --- |"]
    for name in sorted(words, key=str.lower):
        source, what = _describe(getattr(home, name), name, home)
        rows.append(f"| [`{name}`](../{source}) | {words[name]} | {what} |")
    return f"\n## `{module}`\n\n" + "\n".join(rows) + "\n"


def _describe(value: Any, name: str, home: ModuleType) -> tuple[str, str]:
    """The file that a name is defined in, and the first line of its docstring."""
    if name in WHAT:
        value = home
    file = Path(inspect.getfile(inspect.unwrap(value))).relative_to(ROOT).as_posix()
    first = WHAT.get(name) or (inspect.getdoc(value) or "").split("\n\n")[0]
    words = re.sub(r":\w+:(?=`)", "", " ".join(first.split())).replace("``", "`")
    return file, words.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(pages()[PAGE], encoding="utf-8", newline="\n")
    print(f"{PAGE}: made from the docstrings")

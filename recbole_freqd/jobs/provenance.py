"""Notes what a finished run was made with, and why another failed."""

import os
import platform
import shlex
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Callable, Optional

from recbole_freqd.core.errors import FreqDError
from recbole_freqd.core.files import write_text


def note_failure(path: Path, error: Exception) -> str:
    """Writes the traceback of an error to a file, and gives the error in a line.

    Raises:
        CheckpointError: It cannot be written.
    """
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    write_text(path, text)
    return describe_error(error)


def describe_error(error: Exception) -> str:
    """Gives the message of an error in one line, with its kind if it is not ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FreqDError) else f"{type(error).__name__}: {text}"


def describe_environment(device: Any) -> dict[str, Any]:
    """What a number was made with, beside what decides on the identity of its run."""
    import numpy
    import torch

    cuda = torch.device(device).type == "cuda"
    program, *arguments = getattr(sys, "orig_argv", sys.argv)  # main changes sys.argv
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else str(device),
        "threads": torch.get_num_threads(),
        "command": shlex.join([os.path.basename(program), *arguments]),
    }


def say_other_commits(taken: Iterable[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Says in a line if any of what was finished before was made by other code than this."""
    made = [(record.get("made_with") or {}).get("commit") for record in taken]
    others = Counter(str(commit) for commit in made if commit != _commit())
    if others:
        told = ", ".join(f"{commit} ({count})" for commit, count in sorted(others.items()))
        say(
            f"{sum(others.values())} of the finished runs come from other commits of this "
            f"package: {told}; it is {_commit()} now. They are used all the same."
        )


@cache
def _commit() -> Optional[str]:
    """The commit of this package, ``-dirty`` where files differ; None outside a checkout of it."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # else the package lies in a project's folder
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None

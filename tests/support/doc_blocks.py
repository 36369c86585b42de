"""The fenced blocks of README.md and docs/, and a newcomer who types what they say.

A block is bash, python or yaml, which is run, or text, which is not. One comment line or several
right above a block say what is special about it:

    <!-- not run: why -->                  it cannot be run here
    <!-- run by tests/test_x.py::name -->  that test runs it
    <!-- run first: a command -->          what the page takes for granted
    <!-- run with: options -->             added to every command of the script, to keep it small
    <!-- test-command -->                  .ci/run runs it
    <!-- made: what, by `make docs` -->    a script writes it

What is run is run from top to bottom of a page, in one empty folder, with these substitutions:
ml-100k is the tiny dataset; RecBole's defaults, and the main job's, are those of one short epoch;
``....`` in the name of a file stands for whatever fits, and the newest is taken. A block whose first
line is a comment with nothing but the name of a file is saved under this name.
"""

import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKS = ("not run", "run by", "run first", "run with", "test-command", "made")
SCRIPT = [
    ["python", "run_recbole_freqd.py"],
    ["python", "-m", "recbole_freqd"],
    ["run_recbole_freqd"],
]
_FENCE = re.compile(r"^```(\w*)\s*$")
_MARK = re.compile(r"^<!-- *(.*?) *-->$")
_NAME = re.compile(r"^# ([\w.]+\.\w+)$")
_KINDS = {"choice", "uniform", "quniform", "loguniform"}
_WILD = re.compile(r"[\w./-]*\.{4}[\w./-]*")


@dataclass
class Block:
    """A fenced block: where it is (path and line of its first line), its language, code and marks."""

    page: Path
    line: int
    language: str
    code: str
    marks: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in order.

    Raises:
        AssertionError: A comment above a block that is no known mark.
    """
    found, marks, block = [], {}, None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence, mark = _FENCE.match(line), _MARK.match(line)
        if block is not None and line.startswith("```"):
            found.append(block)
            block, marks = None, {}
        elif block is not None:
            block.code += line + "\n"
        elif fence:
            for name in marks:
                assert name in MARKS, f"{page.name}:{number}: {name!r} is none of {MARKS}"
            block = Block(page, number + 1, fence[1], "", marks)
        elif mark:
            name = next((name for name in MARKS if mark[1].startswith(name)), mark[1])
            marks[name] = mark[1][len(name) :].strip(": ")
        elif line.strip():
            marks = {}
    assert block is None, f"{block} does not end"
    return found


class Newcomer:
    """Types what a page says, into an empty folder.

    Args:
        page: The page.
        folder: The working directory.
        monkeypatch: Of the test; takes the page's module away again.
    """

    def __init__(self, page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        # A module with a file, since checkpoints refer to classes by it, and their code is read.
        self.module = types.ModuleType(f"page_{page.stem.lower()}")
        self.module.__file__ = str(folder / f"{self.module.__name__}.py")
        monkeypatch.setitem(sys.modules, self.module.__name__, self.module)

    def run(self, block: Block) -> None:
        """Runs one block.

        Raises:
            AssertionError: Its language or a command is unknown, or a command ends in an error.
        """
        if "run first" in block.marks:
            self.bash(block.marks["run first"])
        name = _NAME.match(block.code.partition("\n")[0])
        code = block.code if block.language == "bash" else self.filled(block.code)
        if name:
            (self.folder / name[1]).write_text(code, encoding="utf-8")
        if block.language == "bash":
            for line in code.replace("\\\n", " ").splitlines():
                self.bash(line, block.marks.get("run with", ""))
        elif block.language == "python":
            self.python(block, code)
        elif block.language == "yaml":
            self.config(block, code)
        else:
            assert block.language in ("text", "mermaid"), (
                f"a block of {block.language or 'no language'}"
            )

    def filled(self, text: str) -> str:
        """The text with the substitutions of names."""
        return _WILD.sub(self._newest, text.replace("ml-100k", "tiny"))

    def _newest(self, match: re.Match) -> str:
        fitting = sorted(self.folder.glob(match[0].replace("....", "*")), key=_age)
        assert fitting, f"there is no {match[0]}, but {sorted(self.folder.glob('*/*'))}"
        return str(fitting[-1].relative_to(self.folder))

    def bash(self, line: str, more: str = "") -> None:
        """Runs one line."""
        words = shlex.split(self.filled(line), comments=True)
        while words and re.match(r"OMP_NUM_THREADS=\d+$", words[0]):
            del words[0]
        starts = [start for start in SCRIPT if words[: len(start)] == start]
        if starts:
            arguments = words[len(starts[0]) :] + shlex.split(more)
            self.script(arguments)
        elif words[:2] == ["pip", "install"]:
            check_requirements(words[2:])
        elif words[:1] == ["python"] and words[1].startswith("examples/"):
            call = [sys.executable, str(ROOT / words[1]), *words[2:]]
            done = subprocess.run(call, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            assert not words, f"{line!r} is nothing that can be run here: say so above the block"

    def script(self, arguments: list[str]) -> None:
        """The script, in this process."""
        from recbole_freqd.jobs.script import main

        try:
            code = main(arguments)
        except SystemExit as left:  # --help
            code = left.code
        assert code == 0, f"exit code {code} of run_recbole_freqd {shlex.join(arguments)}"

    def python(self, block: Block, code: str) -> None:
        """Runs Python in the page's module, at the line that it has on the page."""
        file = Path(self.module.__file__)
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        lines += [""] * (block.line - 1 - len(lines))
        file.write_text("\n".join([*lines, code]), encoding="utf-8")
        exec(compile("\n" * (block.line - 1) + code, str(file), "exec"), vars(self.module))

    def config(self, block: Block, code: str) -> None:
        """Checks a config, or a search space, as the script would."""
        from recbole_freqd.config.make import make_config
        from recbole_freqd.jobs.tuning import hyper_space as spaces
        from recbole_freqd.jobs.tuning import space as search
        from recbole_freqd.losses import LOSSES

        values = yaml.safe_load(code)
        (self.folder / "block.yaml").write_text(code, encoding="utf-8")
        if {"student", *LOSSES.names()} & set(values):
            search.read_own("block.yaml")
        elif all(
            isinstance(line, dict) and len(line) == 1 and set(line) < _KINDS
            for line in values.values()
        ):
            spaces.Space(["block.yaml"], "random")
        else:
            low = {"model": "BPR", "trainer": "FreqD", "teacher": {"model": "BPR"}}
            low = {key: value for key, value in low.items() if key not in values}
            make_config(low.pop("model", None), "tiny", ["block.yaml"], low)


def _age(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime_ns, path.name


def check_requirements(words: list[str]) -> None:
    """Asserts that what is to be installed is there: files, and extras of setup.py."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for option, value in zip(words, words[1:]):
        assert option != "-c" or (ROOT / value).is_file(), f"there is no {value}"
    for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        for name in extra.split(","):
            assert f'"{name}": ' in setup, f"setup.py has no extra {name}"

"""Options that several commands of the script share, and how a command line is split.

A command is a module with ``NAME``, ``TAKES`` (those of :data:`SHARED` that it takes),
``add_parser(commands)`` and ``run(options, keys)``; see :data:`recbole_freqd.jobs.script.COMMANDS`.
"""

import argparse
from typing import Any, Optional

from recbole_freqd.core.errors import ConfigError, short_repr
from recbole_freqd.trainer.launch import Launch

PROGRAM = "run_recbole_freqd"
KEYS = (
    "Any --key=value is a config key, as in RecBole, e.g. --embedding_size=16 "
    "--teacher.embedding_size=128 --freqd_alpha=0.3. All keys: docs/config.md."
)
SHARED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "model": (("-m", "--model"), {"help": "the student's model (default: BPR)"}),
    "dataset": (("-d", "--dataset"), {"help": "name of the dataset (default: ml-100k)"}),
    "config_files": (("--config_files",), {"help": "YAML files, separated by spaces"}),
    "output_dir": (("--output_dir",), {"help": "where results are saved (default: freqd_runs)"}),
    "resume": (
        ("--resume",),
        {"action": "store_true", "help": "go on where the same command was cut off"},
    ),
    "debug": (("--debug",), {"action": "store_true", "help": "show the traceback of an error"}),
}
"""Flags and details of each shared option, by its name."""
DEFAULTS = {
    **dict.fromkeys(("model", "dataset", "config_files")),
    **{"output_dir": "freqd_runs", "resume": False, "debug": False},
}
_FORMER = {  # a flag of earlier versions, and the command that does its work now
    "compare": "compare FreqD,FD",
    "hyper": "tune SPACE",
    "sweep": "sweep KEY=VALUES",
    "analyze": "analyze STUDENT.pth,... --teacher TEACHER.pth",
    "student": "analyze STUDENT.pth,... --teacher TEACHER.pth",
    "export": "export STUDENT.pth --out DIR",
}


def add_shared(parser: argparse.ArgumentParser, *names: str) -> None:
    """Adds shared options without a default: what stood before the command's name is kept."""
    for name in names:
        flags, details = SHARED[name]
        parser.add_argument(*flags, **details, default=argparse.SUPPRESS)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds the options by which a command trusts a checkpoint or its data."""
    parser.add_argument(
        "--trust_checkpoint", action="store_true", help="load own classes, which can run code"
    )
    parser.add_argument(
        "--trust_data", action="store_true", help="accept data without proof that it is unchanged"
    )


def add_launch(parser: argparse.ArgumentParser) -> None:
    """The options of :class:`recbole_freqd.trainer.launch.Launch`, by RecBole's names."""
    group = parser.add_argument_group("training in several processes (docs/multi_process.md)")
    group.add_argument("--nproc", type=int, default=1, help="processes on this machine")
    group.add_argument("--world_size", type=int, default=-1, help="processes on all machines")
    group.add_argument("--ip", default="localhost", help="address of the first machine")
    group.add_argument("--port", default="5678", help="port of the first machine")
    group.add_argument(
        "--group_offset", type=int, default=0, help="rank of this machine's first process"
    )


def read_launch(options: argparse.Namespace) -> Launch:
    """The processes that the options ask for.

    Raises:
        ConfigError: They cannot be started, or the command runs in one process.
    """
    launch = Launch(
        options.nproc, options.world_size, options.ip, options.port, options.group_offset
    )
    launch.check()
    alone = options.command or ("--resume" if options.resume else None)
    if launch.is_many and alone:
        raise ConfigError(
            f"{alone} works in one process; got --nproc {launch.nproc}. Leave out one of them: "
            "what several processes do together is one training, from its start to its end."
        )
    return launch


def check_keys(
    parser: argparse.ArgumentParser, words: list[str], owners: dict[str, list[str]]
) -> None:
    """Ends the program unless all words are ``--key=value``, and no key is a command's option.

    Args:
        parser: Whose error it would be.
        words: What no option has taken.
        owners: The commands of each option that others do not have, by the option's name.
    """
    for word in words:
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and name in _FORMER:
            parser.error(f"--{name} is a command now: {PROGRAM} {_FORMER[name]}")
        if word.startswith("--") and name in owners:
            parser.error(f"--{name} goes with {' or '.join(owners[name])}: see --help there")
        if not word.startswith("--") or word.count("=") != 1 or word.startswith("--="):
            parser.error(f"{word!r} is not of the form --key=value (RecBole would ignore it)")
        if word.encode("utf-8", "ignore").decode() != word:  # bytes that are no text
            parser.error(f"{word!r} is no text in UTF-8")


def check_taken(parser: argparse.ArgumentParser, options: argparse.Namespace, takes: Any) -> None:
    """Ends the program where a command has no use for a shared option before it."""
    for name, default in DEFAULTS.items():
        if getattr(options, name) != default and name not in takes:
            parser.error(f"{options.command} takes no --{name}: leave it out")


def read_data_path(command: str, keys: list[str]) -> Optional[str]:
    """Reads ``--data_path``, the one key beside a checkpoint's own config.

    Raises:
        ConfigError: Another key.
    """
    given = dict(key[2:].split("=") for key in keys)
    data_path = given.pop("data_path", None)
    if given:
        raise ConfigError(
            f"{command} reads the checkpoint's own config: --{next(iter(given))} would change "
            "nothing. Allowed beside its own options: --data_path=..., where the data has moved."
        )
    return data_path


def split_names(text: str) -> list[str]:
    """``a,b`` as its names, e.g. of methods or files.

    Raises:
        ArgumentTypeError: There is none, or one is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"got {short_repr(text)}; allowed: names between commas")
    return names


def read_seeds(text: str) -> list[int]:
    """``2020,2022`` or ``2020-2024``.

    Raises:
        ArgumentTypeError: It is neither.
    """
    first, dash, last = text.partition("-")
    try:
        seeds = list(range(int(first), int(last) + 1) if dash else map(int, text.split(",")))
    except ValueError:
        seeds = []
    if not seeds:  # 2024-2020 has none, too
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed: 2020,2021 or 2020-2024")
    return seeds

"""The script: parses the command line and calls a command; heavy imports wait for that."""

import argparse
import re
import sys
from types import ModuleType
from typing import Optional

from recbole_freqd import __version__
from recbole_freqd.core.errors import FreqDError
from recbole_freqd.jobs import main_job
from recbole_freqd.jobs.analysis import command as analysis_command
from recbole_freqd.jobs.comparison import command as comparison_command
from recbole_freqd.jobs.export import command as export_command
from recbole_freqd.jobs.options import (
    DEFAULTS,
    KEYS,
    PROGRAM,
    SHARED,
    add_launch,
    add_shared,
    check_keys,
    check_taken,
    read_launch,
)
from recbole_freqd.jobs.progress import print_line
from recbole_freqd.jobs.recommend import command as recommend_command
from recbole_freqd.jobs.sweep import command as sweep_command
from recbole_freqd.jobs.tuning import command as tuning_command

COMMANDS: dict[str, ModuleType] = {
    module.NAME: module
    for module in (
        comparison_command,
        tuning_command,
        sweep_command,
        analysis_command,
        export_command,
        recommend_command,
    )
}
"""By name; each with ``NAME``, ``TAKES``, ``add_parser`` and ``run``: see :mod:`.options`."""

WITHOUT = "a call without a command"


def main(arguments: Optional[list[str]] = None) -> int:
    """The script: teacher, student alone and distilled student in one table, or a command.

    Args:
        arguments: The command line without the program's name; None: that of this process.

    Returns:
        0, 2 after a mistake of the user's, or 130 after Ctrl-C.
    """
    options, keys = parse(sys.argv[1:] if arguments is None else arguments)
    argv = sys.argv
    sys.argv = [argv[0], *keys]  # what RecBole's Config will read
    try:
        launch = read_launch(options)
        if options.command:
            COMMANDS[options.command].run(options, keys)
        elif launch.is_many:
            launch.run(main_job.train_and_report, options)
        else:
            main_job.train_and_report(options, {})
        return 0
    except FreqDError as error:
        if options.debug:
            raise
        print_line(f"\n{PROGRAM}: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        if options.debug:
            raise
        takes = COMMANDS[options.command].TAKES if options.command else ("resume",)
        goes_on = "resume" in takes and max(options.nproc, options.world_size) <= 1
        way = " The same command with --resume goes on." if goes_on else ""
        print_line(f"\nStopped.{way}", sys.stderr)
        return 130
    finally:
        sys.argv = argv


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the ``--key=value`` that RecBole reads from the command line.

    Ends the program, with one line, where the command line is not as it should be.
    """
    plain = argparse.ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False)
    add_shared(plain, *SHARED)
    add_launch(plain)
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train a teacher, a small student alone and the same student distilled from "
        "the teacher, and compare them. Without arguments: BPR 64 to BPR 8 on ml-100k.",
        epilog=KEYS,
        parents=[plain],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"recbole_freqd {__version__}")
    parser.set_defaults(command=None, **DEFAULTS)
    commands = parser.add_subparsers(
        title="other commands", dest="command", metavar="COMMAND", help="COMMAND --help says more"
    )
    parsers = {WITHOUT: parser}
    parsers |= {name: command.add_parser(commands) for name, command in COMMANDS.items()}
    # To argparse, what holds a space is no option: "--topk=[5, 10]" would be a command's name.
    options_of_all = set().union(*map(_option_names, parsers.values()))
    options_of_all -= {"teacher"} if analysis_command.NAME not in arguments else set()
    spaced = [word for word in arguments if " " in word and _is_key(word, options_of_all)]
    arguments = [word for word in arguments if word not in spaced]
    _, words = plain.parse_known_args(arguments)
    first = next((word for word in words if not word.startswith("-")), None)
    if first is not None and first not in COMMANDS:  # argparse would complain of its choices
        check_keys(parser, words, _owners(parsers, parser))
    options, keys = parser.parse_known_args(arguments)
    keys += spaced
    own = parsers[options.command or WITHOUT]
    check_keys(own, keys, _owners(parsers, own))
    if options.command:
        check_taken(own, options, COMMANDS[options.command].TAKES)
    return options, [*keys, "--resume=True"] if options.resume else keys


def _is_key(word: str, options: set[str]) -> bool:
    """Whether a word is ``--key=value`` with no option of ours."""
    name = word.partition("=")[0]
    return name.startswith("--") and name[2:] not in options


def _owners(
    parsers: dict[str, argparse.ArgumentParser], own: argparse.ArgumentParser
) -> dict[str, list[str]]:
    """The commands of every option that ``own`` lacks; ``teacher`` is a key, too."""
    owners: dict[str, list[str]] = {}
    known = _option_names(own) | {"teacher"}
    for name, parser in parsers.items():
        for option in _option_names(parser) - known:
            owners.setdefault(option, []).append(name)
    return owners


def _option_names(parser: argparse.ArgumentParser) -> set[str]:
    return set(re.findall(r"--(\w+)(?![\w.=])", parser.format_help()))

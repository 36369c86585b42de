"""``analyze``: what students know of a teacher, by frequency. Heavy imports wait until it runs."""

import argparse
from pathlib import Path
from typing import Any

from recbole_freqd.jobs.defaults import config_files
from recbole_freqd.jobs.options import add_shared, add_trust, split_names
from recbole_freqd.jobs.progress import print_line

NAME = "analyze"
TAKES = ("config_files", "output_dir", "debug")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """The command's parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        NAME,
        help="what students know of a teacher, by band of frequencies",
        description="Say what students know of a teacher, by band of frequencies: figures, numbers "
        "and one HTML file (docs/analysis.md; extra [plot]).",
        epilog="Any --key=value is a config key. Useful are those that set the place of the "
        "data, and the device.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "students", metavar="STUDENT.pth,...", type=split_names, help="their checkpoints"
    )
    parser.add_argument(
        "--teacher", metavar="TEACHER.pth", help="its checkpoint (default: the students' own)"
    )
    parser.add_argument("--bands", type=int, default=8, help="bands of frequencies (default: 8)")
    add_trust(parser)
    add_shared(parser, *TAKES)
    return parser


def run(options: argparse.Namespace, keys: list[str]) -> None:
    """Analyses checkpoints, and says where the report is.

    Raises:
        FreqDError: Checkpoints or keys are not as they should be.
    """
    files = config_files(options)
    from recbole_freqd.trainer.register import register

    register()
    from recbole_freqd.checkpoint.loading import load_checkpoint
    from recbole_freqd.config.make import make_config
    from recbole_freqd.jobs.analysis.analyze import analyze

    trust = options.trust_checkpoint
    first = load_checkpoint(options.students[0], trust=trust, trust_by="give --trust_checkpoint")
    dataset = first["config"]["dataset"]
    environment = make_config("BPR", dataset, files, {})  # a device, and where data lies now
    folder = Path(options.output_dir)
    report = analyze(
        options.teacher,
        options.students,
        environment,
        folder,
        options.bands,
        trust=trust,
        trust_data=options.trust_data,
    )
    print_line(f"Report: {report}\nFigures and numbers are beside it.")

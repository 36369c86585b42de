"""``recommend``: a checkpoint's top lists in a file. Heavy imports wait until it runs."""

import argparse
from typing import Any

from recbole_freqd.jobs.options import add_shared, add_trust, read_data_path
from recbole_freqd.jobs.progress import print_line

NAME = "recommend"
TAKES = ("debug",)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """The command's parser, with the options of :func:`recbole_freqd.recommend`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        NAME,
        help="top lists of all users, of some, or of new ones",
        description="Write the top lists of a checkpoint into a file (docs/serving.md).",
        epilog="--data_path=DIR: where the data is now, if it has moved.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", metavar="FILE.pth", help="whose lists are made")
    parser.add_argument(
        "--out", default="lists.csv", help="a .csv or .parquet file (default: lists.csv)"
    )
    parser.add_argument("--top", type=int, default=20, help="length of a list (default: 20)")
    parser.add_argument("--users", metavar="FILE", help="only users of this file, one in a line")
    parser.add_argument(
        "--leave_out",
        default="train",
        help="what is not recommended: train (default), all (for serving), or none",
    )
    parser.add_argument(
        "--histories",
        metavar="FILE",
        help="users who came after training: a .csv or .parquet file of users and their items",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="exact lists of a catalogue of any size (docs/performance.md)",
    )
    add_trust(parser)
    add_shared(parser, *TAKES)
    return parser


def run(options: argparse.Namespace, keys: list[str]) -> None:
    """Makes the lists, and says what is in the file."""
    data_path = read_data_path(NAME, keys)
    from recbole_freqd.jobs.recommend.recommend import recommend

    metadata = recommend(
        options.checkpoint,
        options.out,
        top=options.top,
        users=options.users,
        leave_out=options.leave_out,
        histories=options.histories,
        data_path=data_path,
        trust=options.trust_checkpoint,
        trust_data=options.trust_data,
        exact=options.exact,
        progress=True,
    )
    left_out = {
        "train": "without what they have trained on",
        "all": "without all that they have",
        "none": "nothing left out",
    }
    print_line(
        f"{metadata['model']}: top {metadata['top']} of {metadata['users']} users, "
        f"{left_out[metadata['left_out']]}, in {options.out}"
    )

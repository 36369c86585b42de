"""``export``: a checkpoint's vectors for a serving system. Heavy imports wait until it runs."""

import argparse
from typing import Any

from recbole_freqd.jobs.options import add_shared, add_trust, read_data_path
from recbole_freqd.jobs.progress import print_line

NAME = "export"
TAKES = ("debug",)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """The command's parser, with the options of :func:`recbole_freqd.export`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        NAME,
        help="vectors of a student or teacher for a serving system",
        description="Write a checkpoint's user and item vectors under their tokens "
        "(docs/serving.md).",
        epilog="--data_path=DIR: where the data is now, if it has moved.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", metavar="FILE.pth", help="whose vectors are exported")
    parser.add_argument("--out", default="embeddings", help="to this folder (default: embeddings)")
    parser.add_argument("--format", default="npz", help="npz, parquet or npz,parquet")
    parser.add_argument("--precision", default="float32", help="float32, float16 or int8")
    parser.add_argument("--histories", action="store_true", help="also who has what already")
    parser.add_argument(
        "--spectral", type=int, metavar="RANK", help="approximate scores that are no products"
    )
    parser.add_argument(
        "--align", metavar="OLD_EXPORT", help="turn the vectors onto those of an older export"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    add_trust(parser)
    add_shared(parser, *TAKES)
    return parser


def export_arguments(options: argparse.Namespace, keys: list[str]) -> dict[str, Any]:
    """What :func:`recbole_freqd.export` is called with.

    Raises:
        ConfigError: A config key that an export has no use for.
    """
    return {
        "checkpoint": options.checkpoint,
        "out": options.out,
        "formats": options.format,
        "precision": options.precision,
        "histories": options.histories,
        "spectral": options.spectral,
        "align": options.align,
        "overwrite": options.overwrite,
        "data_path": read_data_path(NAME, keys),
        "trust": options.trust_checkpoint,
        "trust_data": options.trust_data,
        "progress": True,
    }


def run(options: argparse.Namespace, keys: list[str]) -> None:
    """Exports a checkpoint's vectors, and says what is in the folder now."""
    arguments = export_arguments(options, keys)
    from recbole_freqd.jobs.export.export import export

    manifest = export(**arguments)
    counts = " and ".join(f"{manifest[side]['count']:,} {side}" for side in ("users", "items"))
    print_line(
        f"{manifest['model']}: vectors of {counts}, {manifest['dimensions']} x "
        f"{manifest['dtype']}, {manifest['metric']}, in {options.out}/"
        f"{{{', '.join(sorted(manifest['sha256']))}, manifest.json}}"
    )
    if manifest["approximation"]:
        kept = 100 * manifest["approximation"]["top10_overlap"]
        print_line(f"They are an approximation: {kept:.1f} % of the model's top 10 are in theirs.")
    if manifest["aligned"]:
        print_line(_drift(manifest["aligned"], options.align))


def _drift(aligned: dict[str, Any], old: str) -> str:
    shared = " and ".join(f"{count:,} {side}" for side, count in aligned["shared"].items())
    before, after = (100 * aligned[f"drift_{when}"] for when in ("before", "after"))
    return (
        f"Turned onto {old} by {shared}: a vector is {after:.1f} % of a vector's length away from "
        f"its old one, and was {before:.1f} % before. No score has changed."
    )

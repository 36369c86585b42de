"""Configs of older versions of RecBole, as the one that is installed reads them."""

from pathlib import Path
from typing import Any


def bring_up_to_date(config: Any) -> None:
    """Gives a Config that an older RecBole stored what today's expects in it, in place.

    Keys that did not exist then have today's defaults; ``eval_args.mode``, one word until 1.1.1,
    is said of validation and of test.

    Args:
        config: From a checkpoint.
    """
    final = config.final_config_dict
    for key, default in _defaults_of(config).items():
        final.setdefault(key, default)
    split = dict(final["eval_args"])
    mode = split.get("mode", "full")
    if isinstance(mode, str):
        split["mode"] = {"valid": mode, "test": mode}
    final["eval_args"] = split


def _defaults_of(config: Any) -> dict[str, Any]:
    """What today's RecBole has in its files for the model of a Config, on whatever data."""
    import recbole
    from recbole.config import Config

    read = Config.__new__(Config)
    read.yaml_loader, read.internal_config_dict = read._build_yaml_loader(), {}
    folder = Path(recbole.__file__).parent / "properties"
    for file in ("overall.yaml", f"model/{config['model']}.yaml", "dataset/sample.yaml"):
        if (folder / file).is_file():
            read._update_internal_config_dict(str(folder / file))
    return read.internal_config_dict

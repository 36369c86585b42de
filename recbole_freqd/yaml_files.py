"""YAML of ours and of the user's, where ``1e-5`` is a number, as it is for RecBole's own loader."""

import re
from pathlib import Path
from typing import Any

import yaml

from recbole_freqd.errors import ConfigError
from recbole_freqd.writing import PathLike, write_text


class _Loader(yaml.SafeLoader):
    """PyYAML's goes by YAML 1.1, where ``1e-5`` (no dot) and ``1.5e5`` (no sign) are text."""


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that are numbers for this loader, and for RecBole's."""


for kind in (_Loader, _Dumper):
    kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def parse_yaml(text: str) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: It is none.

    Example:
        >>> parse_yaml("{learning_rate: 1e-5, learner: adam}")
        {'learning_rate': 1e-05, 'learner': 'adam'}
    """
    return yaml.load(text, Loader=_Loader)


def read_yaml(file: str, option: str) -> dict[str, Any]:
    """A YAML file of sections with keys.

    Args:
        file: Its path.
        option: The option that named it, for messages.

    Raises:
        ConfigError: It is missing or holds something else.
    """
    if not Path(file).is_file():
        raise ConfigError(f"{option}: {file} does not exist (from {Path.cwd()}).")
    try:
        found = parse_yaml(Path(file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {file} is no YAML: {error}. Correct it there.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{option}: {file} holds {found!r}; allowed: sections with keys.")
    return found


def write_yaml(path: PathLike, comment: str, content: dict[str, Any], **style: Any) -> None:
    """Writes keys in their order below a line of comment, whole or not at all.

    Raises:
        CheckpointError: It cannot be written.
    """
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, **style)
    write_text(path, f"# {comment}\n{text}")

"""Packages that only some things need, and the extras of setup.py that bring them."""

import importlib

from recbole_freqd.errors import ConfigError


def require(package: str, extra: str, what: str) -> None:
    """Raises ConfigError, with how to install it, where a package cannot be imported.

    Args:
        package: As it is imported.
        extra: Of setup.py, which brings it.
        what: What is to be done with it, as the message begins.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{what} needs the package {package}, which cannot be imported ({error}): "
            f'pip install "recbole_freqd[{extra}]", or in a checkout pip install -e ".[{extra}]".'
        ) from error

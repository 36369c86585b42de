"""Makes choices once, in the first process, and keeps them beside the checkpoints."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Callable, Optional

from recbole_freqd import __version__
from recbole_freqd.config.identity import data_fingerprint
from recbole_freqd.config.teaching import is_written
from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.files import fingerprint, read_json, write_json
from recbole_freqd.features.data import pairs, positive_matrix, training_matrix
from recbole_freqd.runtime.processes import Processes
from recbole_freqd.teacher.choice.sampled import MOST_USERS, ValidationSample

logger = logging.getLogger(__name__)


class Chooser:
    """Chooses on validation, for one student.

    Args:
        config: The student's Config.
        train_data, valid_data: Its loaders.
    """

    def __init__(self, config: Any, train_data: Any, valid_data: Optional[Any]) -> None:
        self.config, self.processes = config, Processes.of(config)
        self.dataset, self.valid_data = train_data._dataset, valid_data
        self.user_items = training_matrix(self.dataset)

    @property
    def can_choose(self) -> bool:
        """Whether there are validation interactions."""
        return bool(self.valid_data) and self._valid_items().nnz > 0

    def sample(self, most_users: int = MOST_USERS) -> ValidationSample:
        """The metric, and the users that measure it.

        Args:
            most_users: How many users to draw at most.

        Raises:
            ConfigError: There are no validation interactions.
        """
        config, seen = self.config, self.user_items
        return ValidationSample.draw(
            # With repeatable, RecBole also ranks a user's training items.
            seen * 0 if config["repeatable"] else seen,
            self._valid_items() if self.valid_data else seen * 0,
            metric=config["valid_metric"],
            most_users=most_users,
            most_compared=config["teacher_users"],
            seed=config["seed"],
        )

    def _valid_items(self) -> Any:
        return positive_matrix(self.valid_data._dataset)  # type: ignore[union-attr]

    def may_be(self, key: str, instead: str) -> bool:
        """Whether an ``auto`` key can be chosen; if not, a warning says what is used instead.

        Raises:
            ConfigError: It cannot, and the user wrote it.
        """
        if self.can_choose:
            return True
        if is_written(self.config, key):
            raise ConfigError(
                f"{key}: got auto, but there are no validation interactions to choose by. Set it "
                "to a value, or split off validation data (eval_args)."
            )
        logger.warning(
            "%s: there are no validation interactions to choose by, so it is %s.", key, instead
        )
        return False

    def choose_once(self, kind: str, of: dict[str, Any], choose: Callable[[], Any]) -> Any:
        """Returns what ``choose`` gives in the first process, or gave in an earlier run.

        It keeps the choice in ``checkpoint_dir``, so that a resumed run has the same teacher.
        Without validation data there is no choice, and it keeps nothing.

        Args:
            kind: Begins the name of the file.
            of: The choice depends on this, beside data, seed, metric and version.
            choose: Gives JSON-like values.
        """
        config = self.config
        if not self.can_choose:
            return self.processes.from_first(choose)
        identity = json.loads(
            json.dumps(
                {
                    **of,
                    "data": data_fingerprint(self.dataset),
                    "valid": fingerprint(pairs(self.valid_data._dataset)),  # type: ignore[union-attr]
                    **{key: config[key] for key in ("seed", "valid_metric", "repeatable")},
                    "version": __version__,
                },
                default=str,
            )
        )
        text = json.dumps(identity, sort_keys=True).encode()
        name = hashlib.blake2b(text, digest_size=6).hexdigest()
        path = Path(config["checkpoint_dir"]) / f"{kind}-{config['dataset']}-{name}.json"

        def have() -> Any:
            if path.is_file():
                try:
                    stored = read_json(path)
                    if stored["identity"] == identity:
                        logger.info("Choice reused: %s (%s)", stored["chosen"], path)
                        return stored["chosen"]
                except (CheckpointError, KeyError, TypeError) as error:
                    logger.warning("%s is not readable: %s. Choosing again.", path, error)
            chosen = choose()
            write_json(path, {"chosen": chosen, "identity": identity})
            return chosen

        return self.processes.from_first(have)

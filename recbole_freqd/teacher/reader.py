"""Readers of checkpoints, and the words and remedies of their messages."""

import logging
from dataclasses import dataclass
from typing import Optional

from recbole_freqd.core.errors import FreqDError, TeacherError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reader:
    """The reader of a checkpoint, which decides the words of its messages.

    Attributes:
        noun: What the checkpoint is to it, as a message begins.
        error: What is raised.
        remedy: What else can be done, in a sentence.
        trust: How to load classes of one's own.
        trust_data: How to take data that nothing shows to be what was trained on.
        allow_leakage: How to take another split of the same users and items; None: not at all.
        named_by: The key that has the path.
    """

    noun: str
    error: type[FreqDError]
    remedy: str
    trust: str
    trust_data: str
    allow_leakage: Optional[str] = None
    named_by: Optional[str] = None

    def make_error(self, words: str, *ways: Optional[str]) -> FreqDError:
        """The error to raise: what is wrong, and what can be done."""
        others = "".join(f" Or {way} if you are sure of it." for way in ways if way)
        return self.error(f"{words}. {self.remedy}{others}")

    def raise_or_warn(self, words: str, accepted: bool, way: Optional[str]) -> None:
        """Raises and names the way to accept it, or warns where the user has accepted it."""
        if not accepted:
            raise self.make_error(words, way)
        logger.warning("%s.", words)


FOR_TEACHING = Reader(
    "Teacher",
    TeacherError,
    "Put the data back, or give a recipe instead (teacher.model), or a checkpoint that was trained "
    "on the student's data.",
    trust="set teacher.trust_checkpoint: true",
    trust_data="set teacher.trust_data: true",
    allow_leakage="set teacher.allow_leakage: true",
    named_by="teacher.checkpoint",
)

"""One generic registry: a name, looked up without regard to case, and what stands behind it."""

from typing import Callable, Generic, TypeVar

from recbole_freqd.core.errors import ConfigError, did_you_mean, short_repr

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to entries; a name is registered once.

    Args:
        kind: What the entries are, for error messages ("trainer", "feature adapter").

    Example:
        >>> shapes = Registry("shape")
        >>> shapes.register("Square")(4)
        4
        >>> shapes.canonical("square"), shapes.get("SQUARE")
        ('Square', 4)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that files its argument under ``name``.

        Raises:
            ConfigError: The name is taken.
        """

        def file_under(entry: T) -> T:
            self.refuse_taken(name)
            self._entries[name] = entry
            return entry

        return file_under

    def refuse_taken(self, name: str) -> None:
        """Raises ConfigError where an entry has this name, in whatever case."""
        if name in self:
            raise ConfigError(f"{self.kind} {name!r} is registered already.")

    def canonical(self, name: str) -> str:
        """The registered spelling of ``name``.

        Raises:
            ConfigError: No such name; the message names the nearest.
        """
        for known in self._entries:
            if isinstance(name, str) and known.lower() == name.lower():
                return known
        raise ConfigError(
            f"Unknown {self.kind} {short_repr(name)}. {did_you_mean(name, self._entries)}"
        )

    def get(self, name: str) -> T:
        """The entry filed under ``name``; raises like :meth:`canonical`."""
        return self._entries[self.canonical(name)]

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return str(name).lower() in {known.lower() for known in self._entries}

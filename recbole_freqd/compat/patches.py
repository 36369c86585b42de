"""Attribute changes that can be taken back."""

from __future__ import annotations

from typing import Any

_ABSENT = object()


def _own(owner: Any, name: str) -> Any:
    """Return what `owner` itself holds under `name` (nothing inherited or computed), or _ABSENT."""
    try:
        # Raw, so that a staticmethod stays one and an inherited name counts as absent.
        return vars(owner).get(name, _ABSENT)
    except TypeError:  # an object with __slots__ has no __dict__
        return getattr(owner, name, _ABSENT)


class Patches:
    """Attribute changes that can be taken back.

    Example:
        >>> import types
        >>> owner = types.SimpleNamespace(kept=1)
        >>> patches = Patches()
        >>> patches.set(owner, "kept", 2)
        >>> patches.set(owner, "added", 3)
        >>> patches.undo()
        >>> owner
        namespace(kept=1)
    """

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set `owner.name` to `value` and remember what was there, or that nothing was.

        Args:
            owner: A module, a class or any object that takes attributes.
            name: The attribute.
            value: Its new value.
        """
        old = _own(owner, name)
        setattr(owner, name, value)
        self._done.append((owner, name, old, value))

    def undo(self) -> None:
        """Take all changes back, last first; a name re-patched by others since is left alone."""
        while self._done:
            owner, name, old, value = self._done.pop()
            if _own(owner, name) is not value:
                continue
            if old is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


class Overlay:
    """Another object's attributes, with some replaced.

    Example:
        >>> import types
        >>> Overlay(types.SimpleNamespace(kept=1, other=2), other=3).other
        3
    """

    def __init__(self, target: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced, _target=target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_target"], name)

"""What a call sets for all threads, and a ``with`` block for its own thread only."""

import threading
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class _Value(Generic[T]):
    """What a call set for all threads, until the call is used as a `with` block."""

    def __init__(self, value: T):
        self.value = value
        self.gave_way = False
        self.below: _Value[T] | None = None


class Setting(Generic[T]):
    """A value that scopes set.

    Parameters
    ----------
    name
        Of the context variable of the blocks.
    default
        What holds before the first call.
    """

    def __init__(self, name: str, default: T):
        self.in_block: ContextVar[_Value[T] | None] = ContextVar(name, default=None)
        self.everywhere = _Value(default)
        self.lock = threading.RLock()

    def get(self) -> T:
        """Return the value of the innermost block, else that of the last call."""
        return (self.in_block.get() or self.everywhere).value


class Scope(Generic[T]):
    """Set a value: from now on, or inside a ``with`` block.

    A plain call holds in all threads until the next one. A ``with`` block holds in its own
    thread or task only, and before a plain call.

    Parameters
    ----------
    setting, value
        What is set, and to what.
    """

    def __init__(self, setting: Setting[T], value: T):
        self._setting = setting
        self._tokens: list[Token[_Value[T] | None]] = []
        self._own = _Value(value)
        with setting.lock:
            self._below = setting.everywhere
            setting.everywhere = self._own

    def __repr__(self) -> str:
        return f"<labtree {type(self).__name__}: until the next call, or in a with block>"

    def __enter__(self) -> T:
        setting = self._setting
        with setting.lock:  # it was meant for the block only
            self._own.gave_way, self._own.below = True, self._below
            while (top := setting.everywhere).gave_way and top.below is not None:
                setting.everywhere = top.below
        self._tokens.append(setting.in_block.set(self._own))
        return self._own.value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._setting.in_block.reset(self._tokens.pop())

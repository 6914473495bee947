"""Mistakes that a user can make, and how a program reports them."""

import functools
import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """A mistake of the user: its message says in one line what is wrong, where, and what to do."""

    def __init__(self, message: str):
        # From a data-loading worker, torch makes the exception anew with the whole traceback for a
        # message; what the worker said is the end of it.
        super().__init__(message.rpartition(f"{__name__}.UserError: ")[2].rstrip())


class MissingDependencyError(UserError, ImportError):
    """A package that the project cannot do without is not installed."""


def require_choice(key: str, value: object, choices: Sequence) -> None:
    """Raise :class:`UserError` unless the value of config key ``key`` is one of ``choices``."""
    if value not in choices:
        raise UserError(f"{key} is {value!r}; choose one of {', '.join(map(str, choices))}")


def reason_of(error: BaseException) -> str:
    """The first line of what a library's exception says; its name, if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def reports_user_errors(main: Callable) -> Callable:
    """Decorate a program's ``main``: a :class:`UserError` ends it with one line and exit code 2."""

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapper

"""Errors that a user can mend, and how a tool ends on them: with one line. A bug keeps its traceback."""

import contextlib
import sys
from collections.abc import Iterator

# How a message begins that PyTorch hands over from a data loader's process; a whole traceback follows.
_HANDED_OVER = '\nOriginal Traceback (most recent call last):'


class BadInputError(ValueError):
    """Something that a run cannot use: a file, a value of a config, an argument; the message says what to do.

    Tools print only the message. Any other ``ValueError`` is a bug to them.
    """


class BadTypeError(BadInputError, TypeError):
    """A value of the wrong type."""


class UnavailableError(BadInputError, RuntimeError):
    """Something that this machine or installation does not have."""


# What the system says of a path that a user has named. FileExistsError: a file where a folder is needed.
USER_ERRORS = (
    BadInputError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError,
)  # fmt: skip


@contextlib.contextmanager
def end_on_user_errors(on_interrupt: str | None = None) -> Iterator[None]:
    """End the process with one line where the user can mend what went wrong.

    The line is ``error: <message>``, and the exit code is 1; after Ctrl-C it is 130. Everything else, any other
    ``ValueError`` included, is a bug and goes on with its traceback.

    Args:
        on_interrupt (str, optional): Printed after Ctrl-C. Defaults to None.

    Raises:
        SystemExit: In place of :data:`USER_ERRORS` and of KeyboardInterrupt.
    """
    try:
        yield
    except USER_ERRORS as error:
        sys.exit(f'error: {message_of(error)}')
    except KeyboardInterrupt:
        if on_interrupt:
            sys.stderr.write(f'\n{on_interrupt}\n')
        sys.exit(130)


def message_of(error: BaseException) -> str:
    """Give the message of an error, also where a data loader's process has handed it over.

    Args:
        error (BaseException): The error.

    Returns:
        str: The message, without a traceback.
    """
    text = str(error).strip()
    if _HANDED_OVER not in text:
        return text
    # The traceback ends with the name of the error and its message.
    kind = type(error)
    end = text.splitlines()[-1]
    for name in (kind.__qualname__, f'{kind.__module__}.{kind.__qualname__}'):
        end = end.removeprefix(f'{name}: ')
    return end

"""What the mm packages print while they are imported, and nobody can act on."""

import functools
import logging

import mmengine.logging

# OneDL's packages say so at each import where the client of OneDL's platform, which few have, is not installed. They
# mean it for debugging, but name no logger, and MMEngine then prints whatever the level.
_MISSING_CLIENT = 'Could not import OneDL'


def silence_missing_onedl_client() -> None:
    """Have OneDL's packages not print that the client of OneDL's platform is not installed; a second call does nothing.

    All other messages still come, and so does this one where it is sent to a logger.
    """
    original = mmengine.logging.print_log
    if hasattr(original, '__wrapped__'):
        return

    @functools.wraps(original)
    def print_log(msg, logger=None, level=logging.INFO):
        if not (logger is None and level == logging.DEBUG and str(msg).startswith(_MISSING_CLIENT)):
            original(msg, logger, level)

    mmengine.logging.print_log = print_log

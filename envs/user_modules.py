"""Modules that users name. They are imported if installed, and from the working folder too."""

from __future__ import annotations

import importlib
import os
import sys


def import_module(name: str) -> None:
    """Import a module by its dotted name.

    If it is not installed, it is imported from the working folder, as a script there would do.

    Args:
      name: The dotted name.

    Raises:
      ModuleNotFoundError: The module is neither installed nor in the working folder.
      Exception: Any exception that the module raises while it is imported.
    """
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        here = os.getcwd()
        if error.name != name.partition(".")[0] or here in sys.path:
            raise
        sys.path.append(here)
        try:
            importlib.import_module(name)
        except BaseException:
            sys.path.remove(here)
            raise

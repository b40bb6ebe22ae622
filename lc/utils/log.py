"""Lines of a log, which papermill shows and a notebook does not store."""

import logging
import sys


def log(text, *values):
    """Logs a line: `text % values`.

    Unless the program has configured logging, it goes to standard error, in a notebook to the log
    of its kernel, which papermill's own log shows.
    """
    logger, notebook = logging.getLogger("lc"), kernel()
    if not logger.hasHandlers():
        stream = notebook and notebook.log.handlers[0].stream
        logger.addHandler(logging.StreamHandler(stream))
        logger.setLevel(logging.INFO)
    logger.info(text, *values)


def kernel():
    """The kernel of the notebook that runs in this process, or None."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None)

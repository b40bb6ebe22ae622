"""One line of progress with the time that is left, which leaves no trace in a notebook's stored output."""

import sys
import time

from tqdm import tqdm


class Progress:
    """Counts up to `total` images; a context manager.

    Args:
        show: by default only where a person watches: a terminal, or an interactive notebook.
        done: images of an earlier part, which do not count for the speed.
    """

    def __init__(self, total, label, show=None, done=0):
        self.total, self.label, self.done, self.before = total, label, done, done
        self.start, self.printed = time.monotonic(), 0.0
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        self.notebook = hasattr(shell, "kernel")
        self.show = (self.notebook or sys.stderr.isatty()) if show is None else show

    def __enter__(self):
        return self

    def update(self, images):
        self.done += images
        now = time.monotonic()
        if not self.show or now - self.printed < 0.5:
            return
        self.printed = now
        self._print(tqdm.format_meter(self.done, self.total, now - self.start, ncols=110, prefix=self.label,
                                      initial=self.before, unit=" images", unit_scale=True))

    def __exit__(self, *_):
        if self.printed:
            self._print("")

    def _print(self, line):
        if self.notebook:
            from IPython.display import clear_output

            clear_output(wait=bool(line))
            if line:
                print(line)
        else:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

"""Executing notebooks without a person: papermill runs them, nbconvert makes a page of each."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .run import ROOT

NOTEBOOKS = ROOT / "notebooks"


def execute(names=(), out=None, **parameters):
    """Execute notebooks, each into `out/<name>.ipynb` and `out/<name>.html`; one that fails does not stop the others.

    Two at a time where they only read: starting one takes longer than drawing its figure. One at a time where they train.

    Args:
        names: the beginnings of notebooks' names, such as "03"; all notebooks if there is none.
        out: a folder; by default `build/notebooks` of this project.
        parameters: of the notebooks' parameters cell; those that are None keep their default.

    Returns:
        `{name: None or the error that stopped it}`.

    Raises:
        ValueError: for a name that no notebook has, before any is executed.
    """
    import nbconvert
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in notebooks):
            raise ValueError(f"no notebook {name!r}; known: {', '.join(path.stem for path in notebooks)}")
    out = Path(out or ROOT / "build" / "notebooks")
    out.mkdir(parents=True, exist_ok=True)
    parameters = {name: value for name, value in parameters.items() if value is not None}

    def run(path):
        target, error = out / path.name, None
        try:
            papermill.execute_notebook(path, target, parameters, kernel_name="python3", progress_bar=False)
        except papermill.PapermillExecutionError as stopped:
            error = f"{stopped.ename}: {stopped.evalue}"
        except DeadKernelError as stopped:
            error = str(stopped)
        page, _ = nbconvert.HTMLExporter().from_filename(str(target))
        target.with_suffix(".html").write_text(page, encoding="utf-8")
        print(f"{path.stem}: {error or 'done'}", flush=True)
        return error

    chosen = [path for path in notebooks if not names or path.name.startswith(tuple(names))]
    with ThreadPoolExecutor(1 if parameters.get("train") else 2) as pool:
        return dict(zip([path.stem for path in chosen], pool.map(run, chosen)))

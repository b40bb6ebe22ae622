"""Executing notebooks without a person: papermill runs them, nbconvert makes a page of each."""

import logging
from pathlib import Path

from .run import ROOT

NOTEBOOKS = ROOT / "notebooks"


def execute(names=(), out=None, **parameters):
    """Execute notebooks, each into `out/<name>.ipynb` and `out/<name>.html`; one that fails does not stop the others.

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

    logging.getLogger("papermill").setLevel(logging.ERROR)
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in notebooks):
            raise ValueError(f"no notebook {name!r}; known: {', '.join(path.stem for path in notebooks)}")
    out = Path(out or ROOT / "build" / "notebooks")
    out.mkdir(parents=True, exist_ok=True)
    parameters = {name: value for name, value in parameters.items() if value is not None}
    outcome = {}
    for path in notebooks:
        if names and not path.name.startswith(tuple(names)):
            continue
        target = out / path.name
        try:
            papermill.execute_notebook(path, target, parameters, kernel_name="python3", progress_bar=False)
            outcome[path.stem] = None
        except papermill.PapermillExecutionError as error:
            outcome[path.stem] = f"{error.ename}: {error.evalue}"
        page, _ = nbconvert.HTMLExporter().from_filename(str(target))
        target.with_suffix(".html").write_text(page, encoding="utf-8")
        print(f"{path.stem}: {outcome[path.stem] or 'done'}", flush=True)
    return outcome

"""What the results have, what they lack, and how long the rest would take on this device."""

from .. import hours, results, study
from ..utils.device import resolve_device, said_name


def report(experiments=(), profile=None, device="auto"):
    """Yields the state of each experiment as a line of text, and a named profile's missing runs.

    The hours are those of one run after another. Raises ValueError if a name is unknown or the
    results are damaged.
    """
    profiles, names = [profile] if profile else study.GRIDS, experiments or study.EXPERIMENTS
    wanted = {(chosen, name): study.everything(chosen, [name])
              for chosen in profiles for name in names}
    device, rows = resolve_device(device), results.load_rows()
    seconds, source = hours.estimator(device)
    yield f"{'experiment':14} {'profile':8} {'rows':>4} {'runs':>5} {'hours left':>11}"
    for (chosen, name), runs in wanted.items():
        missing = [run for run in runs if run.id not in rows]
        left = f"{sum(map(seconds, missing)) / 3600:.2f}" if missing else "-"
        yield f"{name:14} {chosen:8} {len(runs) - len(missing):4} {len(runs):5} {left:>11}"
        if profile:
            yield from (f"  missing: {run.id}" for run in missing)
    yield f"hours: on {said_name(device)}, estimated from {source}"

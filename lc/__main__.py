"""Command line: `python -m lc --help`."""

import argparse
import sys

from .run import PROFILES


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m lc", description=__doc__.split(":")[0] + " of the companion to "
                                     "'The Power of Linear Combinations: Learning with Random Convolutions'.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, does):
        command = commands.add_parser(name, help=does, description=does, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        command.set_defaults(run=globals()[f"run_{name}"])
        return command

    train = add("train", "train one network, record its row, print it")
    train.add_argument("model", metavar="NAME", help="such as ResNet-20-16 or ResNet-LC-20-16x128")
    train.add_argument("--dataset", default="cifar10", help="cifar10, cifar100, svhn, fashion-mnist, digits or your own")
    train.add_argument("--frozen", action="store_true", help="keep the spatial convolutions at their random values")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--again", action="store_true", help="train it even if its row exists, and replace the row")

    sweep = add("sweep", "train the runs of an experiment that the results lack")
    sweep.add_argument("experiment", nargs="*", help="such as figure4; all if none is named")
    sweep.add_argument("--time-limit", type=float, metavar="MINUTES", help="start no run that would not end by then")

    notebooks = add("notebooks", "execute notebooks with papermill, and make a page of each")
    notebooks.add_argument("names", nargs="*", metavar="NAME", help="such as 03; all if none is named")
    notebooks.add_argument("--train", action="store_true", default=None, help="train the runs that the results lack")
    notebooks.add_argument("--out", metavar="DIR", help="where they go; else build/notebooks of the project")

    for command in (train, sweep, notebooks):
        command.add_argument("--profile", default="paper", choices=PROFILES, help="the recipe")
        command.add_argument("--data-dir", metavar="DIR", help="folder of the data sets; else $LC_DATA_DIR or the user's cache")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    for command in (train, sweep):
        command.add_argument("--precision", default="auto", help="auto, fp32 or bf16")

    benchmark = add("benchmark", "measure training steps: images/s, memory and ratios, all from one run")
    benchmark.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    benchmark.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    benchmark.add_argument("--batch", type=int, default=256, help="images a step")
    benchmark.add_argument("models", nargs="*", metavar="NAME", help="the first is what the others are compared with; else "
                           "ResNet-20-16 and ResNet-LC-20-16x1 to x128")

    merge = add("merge", "take over the runs of another results folder")
    merge.add_argument("source", help="the other folder")
    merge.add_argument("--replace", action="store_true", help="where both have a run, take the other's row")

    for command in (train, sweep, merge):
        command.add_argument("--results", metavar="DIR", help="results folder; else $LC_RESULTS_DIR or the project's")

    arguments = parser.parse_args(argv)
    from .training import Stopped, TrainingError  # after parsing: PyTorch takes seconds to import

    try:
        arguments.run(arguments)
    except (ValueError, TrainingError, OSError) as error:
        sys.exit(f"lc: {error}")
    except Stopped:
        sys.exit("lc: stopped by a signal; the same command goes on from there")


def run_train(a):
    from . import results
    from .interrupt import stop_on_signals
    from .run import Run
    from .training import train

    run = Run(a.model, a.dataset, a.frozen, a.seed, a.profile)
    if run.id in results.read(a.results) and not a.again:
        raise ValueError(f"{run.id} is in the results already; --again trains it anew")
    with results.claim(run.id, a.results) as mine, stop_on_signals() as stop:
        if not mine:
            raise ValueError(f"{run.id} is being trained by another process")
        result = train(run, data_dir=a.data_dir, device=a.device, precision=a.precision,
                       checkpoint=results.checkpoint_path(run.id, a.results), stop=stop)
        results.append(result, a.results)
    for column, value in result.row().items():
        print(f"{column:22} {value:.6g}" if isinstance(value, float) else f"{column:22} {value}")


def run_sweep(a):
    from . import study
    from .interrupt import stop_on_signals

    unknown = [name for name in a.experiment if name not in study.EXPERIMENTS]
    if unknown:
        raise ValueError(f"unknown experiment {unknown[0]!r}; known: {', '.join(study.EXPERIMENTS)}")
    runs = study.everything(a.profile, a.experiment)
    with stop_on_signals() as stop:
        trained = study.train_missing(runs, a.results, data_dir=a.data_dir, device=a.device, precision=a.precision,
                                      time_limit=a.time_limit, stop=stop)
        _, missing = study.rows(runs, a.results)
        print(f"trained {len(trained)} runs; {len(missing)} of {len(runs)} are still missing")
        if stop():
            sys.exit("lc: stopped by a signal; the same command goes on from there")


def run_notebooks(a):
    from .batch import execute

    outcome = execute(a.names, a.out, profile=a.profile, train=a.train, data_dir=a.data_dir, device=a.device)
    if any(outcome.values()):
        sys.exit(f"lc: failed: {', '.join(name for name, error in outcome.items() if error)}")


def run_benchmark(a):
    from .benchmark import MODELS, benchmark

    benchmark(a.device, a.precision, a.batch, a.models or MODELS)


def run_merge(a):
    from . import results

    taken, differing = results.merge(a.source, a.results, a.replace)
    print(f"took over {len(taken)} runs from {a.source}")
    for run_id in differing:
        print(f"differs: {run_id} ({'replaced' if a.replace else 'kept as it was; --replace takes the other'})")


if __name__ == "__main__":
    main()

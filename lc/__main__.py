"""Command line: `python -m lc --help`."""

import argparse
import ast
import os
import sys
from contextlib import contextmanager, nullcontext

HELP = """\
The companion to 'The Power of Linear Combinations: Learning with Random Convolutions'.

An experiment is a figure or table of the paper: a list of runs. A run is a network, a data set,
frozen or learnable, a profile and a seed. It leaves a row in results/runs.csv, from which the
notebooks draw. The profiles are paper (the paper's recipe, on a GPU), short (a fifth of its
epochs), quick (about a minute a run on a CPU core) and smoke (seconds).

  python -m lc status                                what is there, what is missing, and the hours
  python -m lc sweep figure4 --profile quick         train what Figure 4 lacks; after Ctrl-C, the
                                                     same command continues
  python -m lc notebooks 03                          execute a notebook, as a page:
                                                     build/notebooks/03_expansion.html
  python -m lc train ResNet-LC-20-16x128 --frozen    one run
  python -m lc imagenet ResNet-18d-LCx64 --data DIR  one run on an image folder, alone or under
                                                     torchrun
  python -m lc COMMAND --help                        all options of a command
"""


def parser():
    """The parser of the command line. It imports nothing of `lc`: `--help` answers at once."""
    parser = argparse.ArgumentParser(prog="python -m lc", description=HELP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, does):
        command = commands.add_parser(name, help=does, description=does,
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        command.set_defaults(run=globals()[f"run_{name}"])
        return command

    train = add("train", "train one network, record its row, print it")
    train.add_argument("model", metavar="NAME", help="such as ResNet-20-16 or ResNet-LC-20-16x128")
    train.add_argument("--dataset", default="cifar10",
                       help="cifar10, cifar100, svhn, fashion-mnist, digits or your own")

    imagenet = add("imagenet", "train one network on an image folder, alone or under torchrun, "
                   "record its row, print it")
    imagenet.add_argument("model", metavar="NAME", help="such as ResNet-50 or ResNet-18d-LCx64")
    imagenet.add_argument("--data", metavar="DIR",
                          help="the image folder, with train/ and val/; else the data set's own")
    imagenet.add_argument("--dataset", metavar="NAME",
                          help="the data set's name in the row; else the folder's")
    imagenet.add_argument("--recipe", default="a2", help="a2 (the paper's), short, quick or smoke")
    imagenet.add_argument("--batch", type=int, metavar="N",
                          help="images of a process at a time; else 256 or fewer")
    imagenet.add_argument("--workers", type=int, metavar="N",
                          help="processes that read images; else 8 for each GPU")

    for command in (train, imagenet):
        command.add_argument("--frozen", action="store_true",
                             help="keep the spatial convolutions at their random values")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--again", action="store_true",
                             help="train it even if its row exists, and replace the row")

    sweep = add("sweep", "train the runs of an experiment that the results lack")
    sweep.add_argument("experiment", nargs="*", help="such as figure4; all if none is named")
    sweep.add_argument("--only", nargs="+", action="extend", default=[], metavar="EXPERIMENT",
                       help="the same, as an option")
    sweep.add_argument("--seeds", nargs="+", type=int, metavar="N",
                       help="these seeds in place of the profile's")
    sweep.add_argument("--shard", metavar="I/N", help="only the I-th of N equal parts of the runs, "
                       "such as 1/4 (docs/cluster.md)")
    sweep.add_argument("--together", type=int, default=1, metavar="N",
                       help="runs that each process trains at once, for a GPU")
    sweep.add_argument("--time-limit", type=float, metavar="MINUTES",
                       help="end by then; the current run leaves a checkpoint")

    notebooks = add("notebooks", "execute notebooks with papermill, and make a page of each")
    notebooks.add_argument("names", nargs="*", metavar="NAME",
                           help="such as 03; all if none is named")
    notebooks.add_argument("--train", action="store_true", default=None,
                           help="train the runs that the results lack")
    notebooks.add_argument("-p", dest="parameters", nargs=2, action="append", default=[],
                           metavar=("NAME", "VALUE"),
                           help="any other parameter of the notebooks; may be repeated")
    notebooks.add_argument("--out", metavar="DIR",
                           help="where they are written; else build/notebooks of the project")

    train.add_argument("--profile", default="paper",
                       help="the recipe: paper, short, quick, smoke, or such as short-decay1e-3")
    for command in (sweep, notebooks):
        command.add_argument("--profile", default="paper",
                             help="the runs and their recipe: paper, short, quick or smoke")
        command.add_argument("--workers", type=int, metavar="N",
                             help="processes that train at once; else one for each GPU")
    for command in (train, sweep):
        command.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
        command.add_argument("--fuse", action="store_true",
                             help="compile a CIFAR-ResNet's BatchNorm and ReLU, on a GPU")
        command.add_argument("--unfolded", action="store_true",
                             help="with --save: keep the LC-Blocks, instead of folding them")
    train.add_argument("--save", metavar="FILE",
                       help="write the trained network as safetensors, for lc.load_network")
    sweep.add_argument("--save", metavar="DIR", help="write each trained network there as "
                       "safetensors, for lc.load_network")
    imagenet.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")

    status = add("status", "how many rows each experiment has, what is missing, and the hours it "
                 "would take on this device")
    status.add_argument("experiment", nargs="*", help="such as figure4; all if none is named")
    status.add_argument("--profile", help="only this profile, with the ids of the missing runs")

    benchmark = add("benchmark", "measure training steps in one run: images/s and memory, into "
                    "results/speed.csv")
    benchmark.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    benchmark.add_argument("--batch", type=int, default=256, help="images a step")
    benchmark.add_argument("--paths", nargs="+", metavar="PATH",
                           help="ways to compute a step: eager, graph, fused, unfolded, loop; "
                           "else all that the device can do")
    benchmark.add_argument("--seconds", type=float, default=1.0,
                           help="to time each case in each of three rounds")
    benchmark.add_argument("models", nargs="*", metavar="NAME",
                           help="else ResNet-20-16 and ResNet-LC-20-16x1, x8 and x128")

    doctor = add("doctor", "check this machine before a long sweep: devices, driver, data sets, "
                 "results, and a training on each")

    merge = add("merge", "take over the runs of another results folder")
    merge.add_argument("source", help="the other folder")
    merge.add_argument("--replace", action="store_true",
                       help="where both have a run, take the other's row")

    for command in (train, sweep, notebooks, doctor):
        command.add_argument("--data-dir", metavar="DIR", help="folder of the data sets; else "
                             "$LC_DATA_DIR or the user's cache")
    for command in (train, imagenet, sweep, notebooks, status, benchmark):
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    for command in (train, imagenet, sweep, status, benchmark, doctor, merge):
        names = ["--results", "--out"] if command is sweep else ["--results"]
        command.add_argument(*names, metavar="DIR",
                             help="results folder; else $LC_RESULTS_DIR or the project's")
    return parser


def main(argv=None):
    arguments = parser().parse_args(argv)
    if getattr(arguments, "results", None):
        os.environ["LC_RESULTS_DIR"] = arguments.results  # for worker processes too
    if arguments.command == "benchmark":  # else PyTorch's profiler would warn; it is read once
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from .training import Stopped, TrainingError

    try:
        arguments.run(arguments)
    except (ValueError, TrainingError, OSError) as error:
        sys.exit(f"lc: {error}")
    except Stopped:
        sys.exit("lc: stopped by a signal; the same command continues from there")


@contextmanager
def _claimed(run, again):
    """Lets no other process train the run. Raises ValueError if one does, or its row is there."""
    from . import results
    from .utils.device import git_version

    row = results.load_rows().get(run.id)
    if row and not again:
        raise ValueError(f"{run.id} is in the results already; --again trains it anew")
    if row:
        print(f"The row is of commit {row['git']}, this is {git_version()}. Only the same commit "
              "gives the same bits.")
    with results.claim(run.id) as mine:
        if not mine:
            raise ValueError(f"{run.id} is being trained by another process")
        yield


def run_train(a):
    from . import networks, results
    from .fast import train
    from .run import Run
    from .utils.signals import stop_on_signals

    run = Run(a.model, a.dataset, a.frozen, a.seed, a.profile)
    if a.save:
        networks.check_file(a.save, a.again)
    with _claimed(run, a.again), stop_on_signals() as stop:
        result = train(run, data_dir=a.data_dir, device=a.device, precision=a.precision,
                       fuse=a.fuse, checkpoint=results.checkpoint_path(run.id), stop=stop)
        if a.save:
            networks.save_network(result, a.save, a.unfolded)
        results.append(result)
    _print(result)


def run_imagenet(a):
    from . import networks, results
    from .imagenet import ImageNetRun, images
    from .imagenet.processes import rank, world
    from .imagenet.training import train_imagenet
    from .utils.files import expanded
    from .utils.signals import stop_on_signals

    folder = expanded(a.data or images.find(a.dataset or "imagenet"))
    name = a.dataset or os.path.basename(os.path.abspath(folder))
    run = ImageNetRun(a.model, name, a.frozen, a.seed, a.recipe)
    kept = results.checkpoint_path(run.id)
    saved = kept.with_suffix(".safetensors")
    first = rank() == 0  # of the processes that torchrun started: it alone writes
    claimed = _claimed(run, a.again) if first else nullcontext()
    # several processes cannot stop at the same step
    stopping = stop_on_signals() if world() == 1 else nullcontext()
    with claimed, stopping as stop:
        result = train_imagenet(run, data=folder, device=a.device, precision=a.precision,
                                batch=a.batch, workers=a.workers, checkpoint=kept, stop=stop,
                                log=lambda line: print(line, flush=True))
        if first:
            networks.save_network(result, saved)
            results.append(result)
    if first:
        _print(result)
        print(f"network: {saved}")


def _print(result):
    for column, value in result.row().items():
        text = f"{value:.6g}" if isinstance(value, float) else value
        print(f"{column:22} {text}")


def run_sweep(a):
    from .sweep import sweep
    from .training import Stopped
    from .utils.signals import stop_on_signals

    with stop_on_signals() as stop:
        sweep([*a.experiment, *a.only], a.profile, seeds=a.seeds, shard=a.shard,
              workers=a.workers, data_dir=a.data_dir, device=a.device, precision=a.precision,
              fuse=a.fuse, together=a.together, time_limit=a.time_limit, save=a.save,
              unfolded=a.unfolded, stop=stop)
        if stop():
            raise Stopped


def run_notebooks(a):
    from .publish import notebooks
    from .utils import check
    from .utils.files import ROOT, expanded

    given = dict(profile=a.profile, train=a.train, data_dir=a.data_dir, device=a.device)
    given |= {name: literal(value) for name, value in a.parameters}
    parameters = {name: value for name, value in given.items() if value is not None}
    if a.workers is not None:
        check.integer("workers", a.workers)
    out = expanded(a.out) if a.out else ROOT / "build" / "notebooks"
    if out.resolve() == notebooks.NOTEBOOKS.resolve():
        raise ValueError(f"the notebooks in {out} would be overwritten; choose another folder")
    paths = notebooks.chosen(a.names, parameters)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{out} cannot be made ({error.strerror}); "
                         "choose another with --out") from None
    trains, outcome = parameters.get("train") is True, {}
    if trains and parameters.keys() <= notebooks.COMMON:  # only a notebook knows its own ones
        outcome |= notebooks.train_before(paths, parameters, a.workers)
    outcome |= notebooks.execute(paths, out, parameters, 1 if trains else 2)
    print(f"notebooks, pages and logs: {out}")
    if any(outcome.values()):
        sys.exit(f"lc: failed: {', '.join(name for name, error in outcome.items() if error)}")


def literal(text):
    """The value of a word on the command line: a literal of Python, such as a list, or text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def run_status(a):
    from .sweep.status import report

    for line in report(a.experiment, a.profile, device=a.device):
        print(line, flush=True)


def run_benchmark(a):
    from .benchmark import benchmark

    benchmark(a.device, a.precision, a.batch, a.models, a.paths, a.seconds)


def run_doctor(a):
    from .sweep.doctor import examine

    wrong = 0
    for right, line in examine(a.data_dir):
        print("ok   " if right else "WRONG", line, flush=True)
        wrong += not right
    if wrong:
        sys.exit(f"lc: {wrong} of this machine's parts cannot be used")


def run_merge(a):
    from . import results

    taken, differing = results.merge(a.source, replace=a.replace)
    print(f"took over {len(taken)} runs from {a.source}")
    done = "replaced" if a.replace else "kept as it was; --replace takes the other"
    for run_id in differing:
        print(f"differs: {run_id} ({done})")


if __name__ == "__main__":
    main()

"""Command line: `python -m lc --help`."""

import argparse
import os
import signal
import sys

HELP = """\
The companion to 'The Power of Linear Combinations: Learning with Random Convolutions'.

An experiment is a figure or table of the paper: a list of runs. A run is a network, a data set,
frozen or learnable, a profile and a seed. It leaves a row in results/runs.csv, from which the
notebooks draw. The profiles are paper (the paper's recipe, on a GPU), short (a fifth of its
epochs), quick (minutes on a CPU core) and smoke (seconds).

  python -m lc status                                what is there, what is missing, and the hours
  python -m lc sweep figure4                         train what Figure 4 lacks; after Ctrl-C, the
                                                     same command continues
  python -m lc notebooks 03                          execute a notebook, as a page:
                                                     build/notebooks/03_expansion.html
  python -m lc train ResNet-LC-20-16x8 --seed 4      one run
  python -m lc imagenet ResNet-18d-LCx64 --data DIR  one run on an image folder, alone or under
                                                     torchrun
  python -m lc COMMAND --help                        all options of a command
"""


def parser():
    """The parser of the command line. It imports nothing of `lc`: `--help` answers at once."""
    parser = argparse.ArgumentParser(prog="python -m lc", description=HELP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, does):
        return commands.add_parser(name, help=does, description=does,
                                   formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    def option(of, *names, **what):
        for each in of:
            each.add_argument(*names, **what)

    train = command("train", "train one network, record its row, print it")
    imagenet = command("imagenet", "train one network on an image folder, alone or under torchrun, "
                       "record its row, print it")
    sweep = command("sweep", "train the runs of an experiment that the results lack")
    notebooks = command("notebooks", "execute notebooks with papermill, and make a page of each")
    status = command("status", "how many rows each experiment has, what is missing, and the hours "
                     "it would take on this device")
    benchmark = command("benchmark", "measure training steps in one run: images/s and memory, into "
                        "results/speed.csv")
    doctor = command("doctor", "check this machine before a long sweep: devices, driver, data "
                     "sets, results, and a training on each")
    merge = command("merge", "take over the runs of another results folder")

    option([train], "model", metavar="NAME", help="such as ResNet-20-16 or ResNet-LC-20-16x128")
    option([train], "--dataset", default="cifar10",
           help="cifar10, cifar100, svhn, fashion-mnist, digits or your own")

    option([imagenet], "model", metavar="NAME", help="such as ResNet-50 or ResNet-18d-LCx64")
    option([imagenet], "--data", metavar="DIR",
           help="the image folder, with train/ and val/; else the data set's own")
    option([imagenet], "--dataset", metavar="NAME",
           help="the data set's name in the row; else the folder's")
    option([imagenet], "--recipe", default="a2", help="a2 (the paper's), short, quick or smoke")
    option([imagenet], "--batch", type=int, metavar="N",
           help="images of a process at a time; else 256 or fewer")
    option([imagenet], "--workers", type=int, metavar="N",
           help="processes that read images; else 8 for each GPU")

    option([train, imagenet], "--frozen", action="store_true",
           help="keep the spatial convolutions at their random values")
    option([train, imagenet], "--seed", type=int, default=0)
    option([train, imagenet], "--again", action="store_true",
           help="train it even if its row exists, and replace the row")

    option([sweep, status], "experiment", nargs="*", help="such as figure4; all if none is named")
    option([sweep], "--only", nargs="+", action="extend", default=[], metavar="EXPERIMENT",
           help="the same, as an option")
    option([sweep], "--seeds", nargs="+", type=int, metavar="N",
           help="these seeds in place of the profile's")
    option([sweep], "--shard", metavar="I/N",
           help="only the I-th of N equal parts of the runs, such as 1/4 (docs/cluster.md)")
    option([sweep], "--together", type=int, default=1, metavar="N",
           help="runs that each process trains at once, for a GPU")
    option([sweep], "--time-limit", type=float, metavar="MINUTES",
           help="end by then; the current run leaves a checkpoint")

    option([notebooks], "names", nargs="*", metavar="NAME", help="such as 03; all if none is named")
    option([notebooks], "--train", action="store_true", default=None,
           help="train the runs that the results lack")
    option([notebooks], "-p", dest="parameters", nargs=2, action="append", default=[],
           metavar=("NAME", "VALUE"),
           help="any other parameter of the notebooks; may be repeated")
    option([notebooks], "--out", metavar="DIR",
           help="where they are written; else build/notebooks of the project")

    option([train, sweep, notebooks], "--profile", default="paper",
           help="paper, short, quick or smoke; of `lc train` also such as short-decay1e-3")
    option([status], "--profile", help="only this profile, with the ids of the missing runs")
    option([sweep], "--workers", type=int, metavar="N",
           help="processes that train at once; else one for each GPU")
    option([train, sweep], "--fuse", action="store_true",
           help="compile a CIFAR-ResNet's BatchNorm and ReLU, on a GPU")
    option([train, sweep], "--unfolded", action="store_true",
           help="with --save: keep the LC-Blocks, instead of folding them")
    option([train], "--save", metavar="FILE",
           help="write the trained network as safetensors, for lc.load_network")
    option([sweep], "--save", metavar="DIR",
           help="write each trained network there as safetensors, for lc.load_network")

    option([benchmark], "--batch", type=int, default=256, help="images a step")
    option([benchmark], "--paths", nargs="+", metavar="PATH",
           help="ways to compute a step: eager, graph, graphs-2, graphs-4, graphs-8, fused, "
           "unfolded, loop; else all that the device can do")
    option([benchmark], "--seconds", type=float, default=1.0,
           help="to time each case in each of three rounds")
    option([benchmark], "models", nargs="*", metavar="NAME",
           help="else ResNet-20-16 and ResNet-LC-20-16x1, x8 and x128")

    option([merge], "source", help="the other folder")
    option([merge], "--replace", action="store_true",
           help="where both have a run, take the other's row")

    option([train, sweep, notebooks, doctor], "--data-dir", metavar="DIR",
           help="folder of the data sets; else $LC_DATA_DIR or the user's cache")
    option([train, sweep, benchmark], "--precision", default="auto", help="auto, fp32 or bf16")
    option([imagenet], "--precision", default="auto", help="auto, fp32, bf16 or fp16")
    option([train, imagenet, sweep, notebooks, status, benchmark], "--device", default="auto",
           help="auto, cpu, cuda, cuda:1, ...")
    folder = dict(metavar="DIR", help="results folder; else $LC_RESULTS_DIR or the project's")
    option([train, imagenet, status, benchmark, doctor, merge], "--results", **folder)
    option([sweep], "--results", "--out", **folder)
    return parser


def main(argv=None):
    arguments = parser().parse_args(argv)
    if getattr(arguments, "results", None):
        os.environ["LC_RESULTS_DIR"] = arguments.results  # for worker processes too
    if arguments.command == "benchmark":  # else PyTorch's profiler would warn; it is read once
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        _call(arguments)
    except KeyboardInterrupt:  # the second Ctrl-C, or the first of a command that does not train
        print("lc: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)  # as shells expect it


def _call(arguments):
    """Calls a command. Its errors end the process with a line."""
    from . import commands
    from .run import Stopped, TrainingError

    try:
        getattr(commands, f"run_{arguments.command}")(arguments)
    except (ValueError, TrainingError, OSError) as error:
        sys.exit(f"lc: {error}")
    except Stopped:
        sys.exit("lc: stopped by a signal; the same command continues from there")


if __name__ == "__main__":
    main()

"""Bad inputs (test_bad_input.py): what is called or typed, and one word of the answer.

The calls use what the fixtures `good` and `given` make: a network, images, labels and a run that
are all right, and bad files.
"""

import lc
from lc.utils.checkpoint import CheckpointError

LIBRARY = {
    ValueError: {
        "lc.LCBlock(3, 4, (3, 3, 3))": "pair",
        "lc.LCBlock(3, 4, -3)": "kernel_size",
        "lc.LCBlock(3, 4, 4)": "odd",
        "lc.LCBlock(64, 64, 3, expansion=10 ** 8)": "memory",
        "lc.LCBlock(3, 4, 3, expansion=True)": "expansion",
        "lc.LCBlock(3, 4, 3, padding=-1)": "padding",
        "lc.LCBlock(3, 4, 3, stride=0.5)": "stride",
        "lc.LCBlock(3, 4, 3, between='BN')": "list",
        "lc.LCBlock(3, 4, 3, between=['batchnorm'])": "batchnorm",
        "lc.convert(lc.build_model)": "nn.Module",
        "lc.convert(nn.Sequential(nn.LazyConv2d(4, 3)))": "lazy",
        "lc.fold(network.state_dict())": "nn.Module",
        "lc.combined_filters(None)": "nn.Module",
        "lc.freeze_spatial(torch.jit.ScriptModule())": "torch.jit.script",
        "lc.build_model(network)": "Sequential",
        "lc.build_model('ResNet-8-8', num_classes='10')": "num_classes",
        "lc.build_model('ResNet-8-8', in_channels=0)": "in_channels",
        "lc.variance_entropy(np.zeros((4, 3, 3, 3)))": "ndarray",
        "lc.variance_entropy(torch.zeros(4, 9))": "c_out",
        "lc.variance_entropy(torch.full((4, 3, 3, 3), nan))": "finite",
        "lc.variance_entropy(torch.ones(4, 3, 3, 3) * 1j)": "complex",
        "lc.variance_map(nn.Conv2d(3, 4, 3, dtype=torch.complex64))": "complex",
        "lc.variance_map(nn.Linear(3, 4))": "spatial",
        "lc.randomness_threshold(0)": "number",
        "lc.accuracy(network, images, [0] * 6)": "list",
        "lc.accuracy(network, images[:0], labels[:0])": "images",
        "lc.accuracy(network, images, labels[:3])": "labels",
        "lc.accuracy(network, images, labels + 7)": "classes",
        "lc.accuracy(network[:2], images, labels)": "logits",
        "lc.accuracy(nn.Linear(8, 2, device='meta'), images, labels)": "meta",
        "lc.accuracy(nn.AdaptiveMaxPool2d(1, True), images, labels)": "tuple",
        "lc.fgsm_accuracy(network, images, labels - 1)": "classes",
        "lc.fgsm_accuracy(network, 255 * images, labels)": "normalisation",
        "lc.fgsm_accuracy(network, images, labels, eps=nan)": "eps",
        "lc.Normalize((0.5, 0.5), (0.25, 0.0))": "std",
        "lc.Normalize((0.5, 0.5, 0.5), (0.25,))": "channel",
        "lc.Recipe('mine', epochs=0)": "epochs",
        "lc.Recipe('mine', batch_size=None)": "batch_size",
        "lc.Recipe('mine', learning_rate=nan)": "learning_rate",
        "lc.Recipe('mine', momentum=1)": "momentum",
        "lc.Recipe('mine', label_smoothing=10)": "label_smoothing",
        "lc.Recipe('mine', precision='fp16')": "precision",
        "lc.Recipe('..')": "id",
        "lc.Run('ResNet-20', 'digits', True, 2 ** 64)": "seed",
        "lc.Run('ResNet-20', 'digits', 1, 0)": "frozen",
        "lc.Run('ResNet-20', 'data/mine', True, 0)": "id",
        "lc.train('ResNet-20-16')": "lc.Run",
        "lc.train(run, device='cuda:²')": "device",
        "lc.train(run, device='cuda:99')": "cuda:99",
        "lc.train(run, precision='fp16', device='cpu')": "precision",
        "benchmark.benchmark('cpu', batch='256')": "batch",
        "benchmark.benchmark('cpu', batch=10 ** 13, models=['ResNet-8-8'])": "batch",
        "study.collect(study.figure4, 'smoke', expansions=[])": "expansions",
        "study.collect(study.figure4, 'smoke', expansions=['8'])": "expansions",
        "study.collect(study.table3, 'smoke', expansion=0)": "expansion",
        "study.collect(study.figure1a, 'smoke', networks='ResNet-18')": "networks",
        "study.collect(study.table1, 'smoke', datasets=[5])": "id",
        "study.collect(study.figure4, 'smoke', seeds=4)": "seeds",
        "study.collect(study.figure4, ['smoke'])": "profile",
        "study.check_parameters('paper', 1, '', 'auto')": "train",
        "study.check_parameters('paper', False, '', 'gpu')": "gpu",
        "study.check_parameters('paper', False, '', 'auto', seed='0')": "seed",
        "study.train_missing([run], time_limit=nan)": "time",
    },
    TypeError: {
        "study.figure4('smoke', expansion=[8])": "expansion",
        "lc.Recipe('mine', lr=0.1)": "lr",
    },
    lc.DataError: {
        "lc.load_data(None, root)": "unknown",
        "lc.load_data('cifar10', file('data', b'a file'))": "LC_DATA_DIR",
    },
    lc.ResultsError: {
        "results.load_table(file('store', b'a file'))": "read",
        "results.load_table(rows(bytes(range(256)) * 9))": "repair",
        "results.load_table(rows(text.replace(b'87.5', b'caf\\xe9')))": "repair",
        "results.append(result(id='../../outside'), root / 'store')": "id",
        "results.checkpoint_path('digits/../frozen/paper/seed0', rows())": "id",
        "results.load_arrays(result(7).id, rows())": "arrays",
        "results.merge(rows(text.replace(b'digits', b'..')), other)": "id",
    },
    CheckpointError: {
        "resume(file('run.pt', None))": "directory",
        "resume(saved({'model': torch.zeros(3)}))": "damaged",
    },
}

# Typed after `python -m lc`; the answer begins with "lc: "
COMMANDS = {
    "train VGG-16": "VGG-16",
    "train ResNet-20 --dataset page": "page.npz",
    "train ResNet-20 --results file": "read",
    "sweep figure5": "figure5",
    "status --results junk": "runs.csv",
    "merge nowhere": "runs.csv",
    "merge results": "merge",
    "notebooks 03 --out file": "file",
}
# The same, where argparse answers, with the usage
USAGE = {
    "": "COMMAND",
    "sweeep figure4": "sweeep",
    "train ResNet-20 --seed one": "--seed",
}

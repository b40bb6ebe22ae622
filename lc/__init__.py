"""Learning with random convolutions: LC-Blocks, training, the paper's experiments."""

import importlib
import importlib.util

# Public names by module. They are imported on first use: PyTorch alone takes seconds.
_PUBLIC = {
    "blocks": ("LCBlock", "fold", "combined_filters"),
    "conversion": ("convert", "freeze_spatial"),
    "models": ("build_model",),
    "initial": ("init_spatial",),
    "data": ("load_data", "DataError"),
    "run": ("Recipe", "Run", "Result", "PROFILES", "TrainingError"),
    "fast.trainer": ("train",),
    "evaluate": ("accuracy", "fgsm_accuracy", "Normalize"),
    "filters": ("variance_entropy", "randomness_threshold", "variance_map"),
    "results": ("ResultsError",),
    "networks": ("save_network", "load_network"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f".{name}", __name__)  # a module, such as `lc.results`
    raise AttributeError(f"module 'lc' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])

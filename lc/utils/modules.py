"""What PyTorch's modules do not tell or do themselves: their hooks, their place in a network."""

from torch import nn


def is_plain(module):
    """Whether a module computes what `nn.Conv2d` computes from its weight."""
    kind = type(module)
    return (isinstance(module, nn.Conv2d) and "forward" not in module.__dict__
            and kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward)


def hooks(module):
    """The attributes that hold a module's forward and backward hooks."""
    return {name: value for name, value in vars(module).items() if name.startswith(("_forward_", "_backward_", "_is_full_"))}


def replace_modules(model, modules, make):
    """Puts `make(module)` in the place of each of some modules, wherever the model refers to it.

    This includes attributes that are lists, tuples or dictionaries. Nothing is replaced if `make` fails for one of them.
    """
    made, seen = {module: make(module) for module in modules}, set()

    def replaced(value):
        if isinstance(value, nn.Module):
            return made.get(value, value)
        if isinstance(value, tuple):
            items = [replaced(item) for item in value]
            changed = any(new is not old for new, old in zip(items, value))
            return (getattr(value, "_make", type(value)))(items) if changed else value  # _make is of a namedtuple
        if isinstance(value, (list, dict)) and id(value) not in seen:
            seen.add(id(value))
            for key, old in list(value.items() if isinstance(value, dict) else enumerate(value)):
                if (new := replaced(old)) is not old:
                    value[key] = new
        return value

    for module in list(model.modules()):
        if module not in made:
            replaced(vars(module))
    return replaced(model)

"""What PyTorch does not do itself: modules that take the place of others, fp32 in autocast."""

import copy
from contextlib import nullcontext

import torch
from torch import nn

PARTS = {"weight", "bias", "spatial", "between", "pointwise"}  # an LC-Block's too
NOT_KEPT = {*PARTS, *nn.Conv2d.__constants__, "transposed", "_reversed_padding_repeated_twice",
            "_compiled_call_impl"}  # sizes, and the compiled call of the old module


def is_plain(module):
    """Whether a module computes what `nn.Conv2d` computes from its weight."""
    kind = type(module)
    return (isinstance(module, nn.Conv2d) and not {"forward", "_conv_forward"} & vars(module).keys()
            and kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward)


def take_over(new, old, weights=None, tied=None, copies=None):
    """Gives a module what it keeps of the one whose place it takes: all but sizes and weights.

    It keeps the mode, hooks, and what else is neither an `nn.Conv2d`'s nor an LC-Block's own. Of
    the weights, it keeps memory format, frozen state, attributes and tying, but not their hooks.

    Args:
        weights: `{name of a weight of new: (the weights of old that it stands for, what else it is
            computed from)}`, such as `{"weight": ((spatial, pointwise), ())}`. It is frozen if all
            weights that it stands for are, and has the attributes of the last one.
        tied: the weights made so far, by what they are computed from, for all modules of a model.
        copies: the memo of `copy.deepcopy`, if `new` belongs to a copy of the model.
    """
    def own(value):
        return value if copies is None else copy.deepcopy(value, copies)

    new.train(old.training)
    for name, value in vars(old).items():
        if name in ("_parameters", "_buffers", "_modules"):
            if name != "_modules" or not isinstance(new, nn.Sequential):  # which would call them
                vars(new)[name] |= own({k: v for k, v in value.items() if k not in PARTS})
        elif name not in NOT_KEPT:
            vars(new)[name] = own(value)
    for name, (sources, others) in (weights or {}).items():
        owner, _, kind = name.rpartition(".")
        owner = new.get_submodule(owner)
        weight = getattr(owner, kind)
        weight.requires_grad_(any(source.requires_grad for source in sources))
        for source in sources:
            copy_attributes(source, weight)
        if any(is_channels_last(source) for source in sources):
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        setattr(owner, kind, tied.setdefault((name, *sources, *others), weight))


def copy_attributes(old, new):
    """Copies what users set on a parameter, such as `weight.lr_scale`: `copy.deepcopy` does not."""
    if type(old.data) is torch.Tensor:  # others keep their values in attributes
        vars(new).update(vars(old))


def without_autocast(device):
    """A context in which operations on this kind of device keep their precision."""
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else nullcontext()


def is_channels_last(weight):
    return (weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
            and not weight.is_contiguous())


def become(module, new):
    """Makes a module another one in place, so that all that refers to it, refers to the new one."""
    module.__class__ = type(new)
    vars(module).clear()
    vars(module).update(vars(new))


def tensors_in(value, seen):
    """The tensors in a value, also those in its lists, tuples and dictionaries but for `seen` ones.

    `seen` is a set of ids, to which it adds.
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)) and id(value) not in seen:
        seen.add(id(value))
        for each in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(each, seen)


def replace_in_copy(model, matches, make, fill):
    """A copy of a model with `make(module)` in place of each of its modules that `matches`.

    Then it calls `fill(new, module, copies)`: there, `copy.deepcopy(x, copies)` gives the copy of x
    that the rest of the copied model has.
    """
    made = {m: make(m) for m in model.modules() if matches(m)}
    seen = set()
    copies = {id(t): t.detach().clone() for m in model.modules() for t in tensors_in(vars(m), seen)
              if not t.is_leaf}  # which deepcopy would refuse
    copies |= {id(m): new for m, new in made.items()}
    copied = copy.deepcopy(model, copies)
    for module, new in made.items():
        fill(new, module, copies)
    for parameter in model.parameters():
        if id(parameter) in copies:
            copy_attributes(parameter, copies[id(parameter)])
    return copied

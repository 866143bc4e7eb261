"""A GPU that is pretended: its tensors say that they are on "cuda:0", but their values are in CPU memory.

A program that mixes its tensors with those of the CPU fails as on a GPU, and one that does not gets the
numbers of the CPU.  So all of a run can be checked, evaluation included, on a machine without a GPU.  Not
pretended are autocast, torch's random numbers on a GPU, streams and several processes.
"""
import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import train
from data.lab import run, runs

GPU = torch.device("cuda", 0)
COPYING = ("_to_copy", "copy_")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")      # a GPU takes indices from the host


class OnGPU(torch.Tensor):
    """A tensor on the pretended GPU.  values: a tensor on the CPU."""

    @staticmethod
    def __new__(cls, values):
        # torch itself takes it for a tensor on the meta device, whose values it never reads
        return torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(),
            dtype=values.dtype, device="meta")

    def __init__(self, values):
        self.values = values

    @property
    def device(self):
        return GPU

    @property
    def is_meta(self):
        return False

    def tolist(self):
        return self.values.tolist()

    def __repr__(self):
        return f"OnGPU({self.values})"

    def __reduce_ex__(self, protocol):                         # a checkpoint holds the values
        return self.values.detach().__reduce_ex__(protocol)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


class Dispatch(TorchDispatchMode):
    """Sends the operations that make tensors here, too."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


def values_of(tree):
    return tree_map(lambda x: x.values if isinstance(x, OnGPU) else x, tree)


def compute(function, args, kwargs):
    """One operation of torch, on the values.  Raises RuntimeError if its tensors are on two devices."""
    name = function.overloadpacket.__name__
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, OnGPU)]
    others = [x for x in tensors if not isinstance(x, OnGPU)]
    in_place = name.endswith("_")
    target_is_ours = bool(tensors) and isinstance(tensors[0], OnGPU)
    if ours and name not in COPYING and not (name in INDEXING and target_is_ours):
        # numbers may come from the host, but results do not go there
        mixed = any(x.dim() for x in others) or in_place and not target_is_ours
        if mixed:
            raise RuntimeError(f"{name}: tensors of cuda:0 and of cpu, {[tuple(x.shape) for x in tensors]}")
    wanted, to_gpu = kwargs.get("device"), bool(ours)
    if wanted is not None:                                     # meta: where torch thinks that one of ours is
        to_gpu = torch.device(wanted).type in ("cuda", "meta")
        kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"} | dict(device="cpu")
    found = function(*values_of(args), **values_of(kwargs))
    if in_place:
        return args[0] if isinstance(found, torch.Tensor) else found
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map(lambda x: OnGPU(x) if isinstance(x, torch.Tensor) else x, found) if to_gpu else found


class NoAutocast(contextlib.nullcontext, contextlib.ContextDecorator):
    """In place of autocast, which acts only on a device that torch knows."""


@contextlib.contextmanager
def pretend_gpu(monkeypatch):
    """Within this context there is one GPU."""
    load, generator = torch.load, torch.Generator

    def load_values(path, map_location="cpu", **options):
        found = load(path, map_location="cpu", **options)
        return tree_map(lambda x: x.to(map_location) if isinstance(x, torch.Tensor) else x, found)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 0)
        patch.setattr(torch, "load", load_values)
        patch.setattr(torch, "Generator", lambda device="cpu": generator())
        patch.setattr(torch, "autocast", lambda *args, **kwargs: NoAutocast())
        patch.setattr(torch, "is_autocast_enabled", lambda device: False)
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        # a device without a number is the current one, which only a GPU can name
        device_of = runs.device_of

        def numbered(name):
            return GPU if device_of(name).type == "cuda" else torch.device("cpu")
        for module in (run, runs, train):
            patch.setattr(module, "device_of", numbered)
        # a weight that moves to the GPU stays the same object, so that tied ones stay tied
        patch.setattr(torch.__future__, "get_swap_module_params_on_conversion", lambda: True)
        torch._C._set_only_lift_cpu_tensors(True)              # torch.tensor(data, device=GPU) makes a copy
        try:
            with Dispatch():
                yield GPU
        finally:
            torch._C._set_only_lift_cpu_tensors(False)

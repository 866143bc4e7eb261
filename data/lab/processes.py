"""Several processes, as torchrun starts them: each computes a share of the rows of every batch.

Losses are sums of parts, and so are their gradients: the shares of several processes add up to the batch of
one, in another order.  (torch's DistributedDataParallel expects one forward and backward pass per step, and
takes the mean.)  Every process holds all weights: 1.3 billion parameters and their AdamW state take 21 GB.
"""
import atexit
import ctypes
import os
import sys
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

try:
    import resource
except ImportError:                                            # Windows
    resource = None


def keep_freed_memory():
    """Keep the memory of freed tensors for the next ones; the results are the same.

    By default, glibc returns large blocks to the system at once and gets them back as new pages, which the
    system must clear: 12,000 pages in a step of the default run, a fifth of its time on a CPU.
    """
    mmap_threshold, trim_threshold = -3, -1                    # the names in malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        if not libc.mallopt(mmap_threshold, 2**30):
            libc.mallopt(mmap_threshold, 2**25)                # the most that an older glibc accepts
        libc.mallopt(trim_threshold, 2**30)
    except (OSError, AttributeError):                          # no glibc: another system, or musl
        pass


def peak_memory(device):
    """The most memory that the GPU, or this process on a CPU, has used so far, in GiB; 0 if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if resource is None:
        return 0.0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**30 if sys.platform == "darwin" else 2**20)                 # bytes, or KiB


def choose_dtype(device):
    """The dtype to compute in: "bfloat16" if the device has instructions for it, else "float32"."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    found = getattr(torch.cpu, "get_capabilities", dict)()     # an older torch does not know them
    native = found.get("amx_bf16") or found.get("bf16")        # the second is ARM's name
    if "Intel" not in str(found.get("cpu_name")):              # Intel's CPUs lose time with it, without AMX
        native = native or found.get("avx512_bf16")
    return "bfloat16" if native and torch.backends.mkldnn.is_available() else "float32"


class Processes:
    """This process (rank) among all (world_size)."""

    def __init__(self, rank=0, world_size=1):
        self.rank, self.world_size = rank, world_size

    def rows(self, n, parts=1):
        """This process's share of n rows: -> a list of `parts` index arrays."""
        return np.array_split(np.arange(n), parts * self.world_size)[self.rank::self.world_size]

    def gather(self, states):
        """Make states(model, tokens, mask, ...) -> (..., N, D) split its rows among the processes.

        The rows of all processes come in the order of the batch, so that negatives come from all of them.
        Every process computes the same loss of all rows, and needs the gradient of its own rows only.
        """
        def gathered(model, tokens, mask, *options):
            [rows] = self.rows(len(tokens))
            start, stop = (rows[0], rows[-1] + 1) if len(rows) else (0, 0)
            # slices, because indices on the host would force a GPU sync
            some = slice(start, max(stop, 1))                  # more processes than rows: one that is dropped
            own = states(model, tokens[some], mask[some], *options)[..., :stop - start, :]
            result = own.new_zeros(*own.shape[:-2], len(tokens), own.shape[-1])              # (..., N, D)
            result[..., start:stop, :] = own.detach()
            dist.all_reduce(result)                            # adding zeros changes no bit
            result[..., start:stop, :] = own                   # the same numbers, with their gradient
            return result
        return states if self.world_size == 1 else gathered

    def all_reduce_sum(self, tensors):
        """Replace each tensor, in place, by its sum over all processes."""
        if self.world_size > 1:
            for work in [dist.all_reduce(t, async_op=True) for t in tensors]:
                work.wait()

    def all_reduce_max(self, number):
        """Maximum over all processes (on the CPU, without a GPU sync)."""
        number = torch.tensor(number)
        if self.world_size > 1:
            dist.all_reduce(number, dist.ReduceOp.MAX)
        return number.item()

    def barrier(self):
        if self.world_size > 1:
            dist.barrier()


def init_distributed(device):
    """Join the processes that torchrun started, if any, on a device of this kind: -> Processes."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes()
    has_gpu = device.type == "cuda"
    if has_gpu:                                                # each process has its own GPU
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not dist.is_initialized():                              # the others wait while the first one evaluates
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=timedelta(days=7))
        atexit.register(dist.destroy_process_group)            # threads that still run would abort the exit
    return Processes(dist.get_rank(), dist.get_world_size())

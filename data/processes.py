"""Many processes, as torchrun starts them: each computes a share of the rows of every batch.

Losses are sums of parts, and so are their gradients: a batch of one process and the shares of many give the
same sum, in another order.  (Not torch's DistributedDataParallel: it wants one forward and one backward pass
in each step, and takes the mean.)  Sharing the weights, too, would be torch's fully_shard; 1.3 billion
parameters and their moments in AdamW fit one GPU (21 GB; --accumulate keeps activations small).
"""
import atexit
import os
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist


class Processes:
    """This process (rank) among all (count); alone where torchrun did not start it."""

    def __init__(self, rank=0, count=1):
        self.rank, self.count = rank, count

    def rows(self, n, parts=1):
        """This process's share of n rows: -> a list of `parts` index arrays."""
        return np.array_split(np.arange(n), parts * self.count)[self.rank::self.count]

    def shared(self, states):
        """states(model, tokens, mask, ...) -> (..., N, D), each process computing those of its own rows."""
        def gathered(model, tokens, mask, *how):
            [rows] = self.rows(len(tokens))
            return Gather.apply(states(model, tokens[rows], mask[rows], *how), rows, len(tokens))
        return states if self.count == 1 else gathered

    def add_up(self, tensors):
        """In place: the sum over processes of each tensor."""
        for work in [dist.all_reduce(t, async_op=True) for t in tensors if self.count > 1]:
            work.wait()

    def largest(self, number):
        """Of the numbers of all processes; on the CPU, so that no GPU is waited for."""
        number = torch.tensor(number)
        if self.count > 1:
            dist.all_reduce(number, dist.ReduceOp.MAX)
        return number.item()

    def wait(self):
        if self.count > 1:
            dist.barrier()


class Gather(torch.autograd.Function):
    """The rows of all processes in the order of the batch: negatives come from all of them.

    Every process computes the same loss of all rows, and needs the gradient of its own ones only.
    """
    @staticmethod
    def forward(ctx, mine, rows, n):                                             # (..., n of this process, D)
        ctx.rows, whole = rows, mine.new_zeros(*mine.shape[:-2], n, mine.shape[-1])
        whole[..., rows, :] = mine
        dist.all_reduce(whole)                                                   # adding zeros changes no bit
        return whole                                                             # (..., n, D)

    @staticmethod
    def backward(ctx, gradient):
        return gradient[..., ctx.rows, :], None, None


def join(device):
    """-> Processes, this one among those that torchrun started, on a device of this kind."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes()
    cuda = device.type == "cuda"
    if cuda:                                                   # each process has a GPU of its own
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if not dist.is_initialized():                              # others wait while the first one evaluates
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(days=7))
        atexit.register(dist.destroy_process_group)            # threads that still run would abort the exit
    return Processes(dist.get_rank(), dist.get_world_size())

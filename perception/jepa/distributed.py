"""Data-parallel training: N processes with one global batch learn what one process would.

    torchrun --nproc-per-node 2 --no-python jepa-arm train --data data/panda-push --out runs/panda-push

Each process takes its share of every batch. What is a mean over the batch is made one over all processes:
BatchNorm's and SIGReg's statistics where they are computed, the loss by averaging gradients. Autograd through
an all-reduce gives the gradient of the sum of all processes' losses, so the average of the gradients is that
of the mean loss. Without torchrun nothing here communicates or copies.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from perception.errors import TrainingError


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started with this one; alone otherwise.

    Raises TrainingError when another of them ends before this one is done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not torch.distributed.is_torchelastic_launched():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend)
    try:
        yield
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise TrainingError(
            f"process {rank()} of {world_size()} lost the others: what ended them is said above; the last "
            "checkpoint is kept, run the same command again"
        ) from error
    finally:
        torch.distributed.destroy_process_group()


def wait_for_all() -> None:
    """Until every process has come here."""
    if _is_shared():
        torch.distributed.barrier()


def world_size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if _is_shared() else 1


def rank() -> int:
    """Which of them this is; the first, 0, is the one that reads monitors, writes and reports."""
    return torch.distributed.get_rank() if _is_shared() else 0


def check_shares(batch: int, together: int, head_batch: int) -> None:
    """Raise TrainingError if the batches do not divide evenly, runs of `together` windows kept whole."""
    most = math.gcd(batch // together, head_batch)
    if most % world_size():
        fitting = ", ".join(str(n) for n in range(1, most + 1) if most % n == 0)
        raise TrainingError(
            f"{world_size()} processes cannot share batches of {batch} windows in runs of {together} and of "
            f"{head_batch} pairs evenly: start {fitting}, or change batch, together or head_batch in --config"
        )


def share_of(batch: int) -> slice:
    """This process's part of a batch."""
    size = batch // world_size()
    return slice(rank() * size, (rank() + 1) * size)


def mean_of_processes(value: Tensor) -> Tensor:
    """The mean over all processes of a tensor of one shape; gradients flow back to all of them."""
    return _SumOfProcesses.apply(value) / world_size() if _is_shared() else value


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their mean over all processes, in one message."""
    if not _is_shared():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    message = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(message)
    parts = (message / world_size()).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def share_batch_statistics(model: nn.Module) -> None:
    """Give every BatchNorm in `model` the statistics of all processes' batches; the same state_dict."""
    if not _is_shared():
        return
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm):
                shared = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine)
                shared.load_state_dict(norm.state_dict())
                setattr(parent, name, shared)


class SharedBatchNorm(_BatchNorm):
    """BatchNorm (N, C, ...) over the batches of all processes, equally large. torch's own needs a GPU."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        values = input.float()
        others = [axis for axis in range(input.dim()) if axis != 1]
        variance, mean = self._of_all_processes(*torch.var_mean(values, others, correction=0))
        self._follow(variance.detach(), mean.detach(), world_size() * input.numel() // input.shape[1])
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        offset = -mean * scale
        if self.affine:
            offset = offset + self.bias
        shape = [-1 if axis == 1 else 1 for axis in range(input.dim())]
        return (values * scale.view(shape) + offset.view(shape)).to(input.dtype)

    def _of_all_processes(self, variance: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """From this process's moments (C,) those of all: variances within add to the variance between."""
        message = torch.zeros(world_size(), 2, len(mean), dtype=mean.dtype, device=mean.device)
        message[rank()] = torch.stack([variance, mean])
        variances, means = _SumOfProcesses.apply(message).unbind(1)
        return variances.mean(0) + means.var(0, correction=0), means.mean(0)

    def _follow(self, variance: Tensor, mean: Tensor, count: int) -> None:
        """Update the running statistics as BatchNorm does: the variance by its unbiased estimate."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class _SumOfProcesses(torch.autograd.Function):
    """All-reduce. Every process's loss sees every summand, so the gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOfProcesses.forward(ctx, gradient)


def _is_shared() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

"""Memory of batches: given out again, but never while a tensor has it."""

from __future__ import annotations

import torch

from distgan.data.batch_memory import BatchMemory

SHAPE = (4, 8, 8, 3)


def test_memory_that_a_tensor_has_is_not_given_out() -> None:
    memory = BatchMemory(SHAPE, 2)
    batch = memory.take()
    assert (batch.shape, batch.dtype) == (SHAPE, torch.uint8)
    part = batch.permute(0, 3, 1, 2)[1:3].fill_(7)
    del batch
    for _ in range(3):
        memory.take().fill_(0)
    assert torch.equal(part, torch.full_like(part, 7))


def test_memory_that_no_tensor_has_is_given_out_again() -> None:
    memory = BatchMemory(SHAPE, 2)
    first = memory.take()
    place = first.data_ptr()
    part = first.numpy()[2]
    del first
    assert memory.take().data_ptr() != place  # `part` has it
    del part
    assert place in {tensor.data_ptr() for tensor in [memory.take(), memory.take()]}

"""The memory that passes of the fused kernels share."""

import pytest
import torch

from encoder.kernels.fused.memory import Memory, Shapes

CPU = torch.device("cpu")


def shapes(length: int) -> Shapes:
    return {"bytes": ((length, 3), torch.uint8), "numbers": ((2, length), torch.float32), "none": ((0,), torch.int64)}


def test_tensors_have_their_shapes_and_stand_apart() -> None:
    memory = Memory(CPU)
    memory.reserve(shapes(100))
    lent = memory.lend(shapes(100))
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in lent.items()} == shapes(100)
    lent["bytes"].fill_(7)
    lent["numbers"].fill_(0.5)
    assert (lent["bytes"] == 7).all()
    assert all(tensor.is_contiguous() for tensor in lent.values())


def test_one_pass_after_the_other_has_the_same_memory() -> None:
    memory = Memory(CPU)
    memory.reserve(shapes(100))
    first, second = memory.lend(shapes(100))["bytes"], memory.lend(shapes(60))["bytes"]
    assert first.data_ptr() == second.data_ptr()
    assert first.untyped_storage().nbytes() >= 100 * (3 + 8)


def test_what_needs_more_than_was_reserved_has_its_own() -> None:
    memory = Memory(CPU)
    small = memory.lend(shapes(10))["bytes"].fill_(1)
    memory.reserve(shapes(10))
    kept, large = memory.lend(shapes(10))["bytes"], memory.lend(shapes(10_000))["bytes"]
    assert len({tensor.untyped_storage().data_ptr() for tensor in (small, kept, large)}) == 3
    assert memory.lend(shapes(10))["bytes"].data_ptr() == kept.data_ptr()


def test_it_is_reserved_once() -> None:
    """What was lent may be written to by a CUDA graph for as long as there is one."""
    memory = Memory(CPU)
    memory.reserve(shapes(10))
    with pytest.raises(RuntimeError, match="reserved before"):
        memory.reserve(shapes(20))

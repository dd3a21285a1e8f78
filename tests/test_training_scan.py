"""The scan for training against the recurrence: values and gradients.

On a GPU, or on a CPU with Triton's interpreter (TRITON_INTERPRET=1), which has no products of bfloat16.
"""

import pytest
import torch
from torch import Tensor

from encoder.kernels import training_scan as module
from encoder.kernels.training_scan import training_scan
from encoder.mixers import Mamba2Mixer
from encoder.packing import Packing
from encoder.scan import reference_scan
from tests.scans import marks, relative_error, ssd_inputs
from tests.tiny_model import tiny_config

triton = pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(
    DEVICE == "cpu" and not triton.knobs.runtime.interpret, reason="needs a GPU, or TRITON_INTERPRET=1"
)
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
NAMES = ("y", "last", "x", "dt", "a", "b_in", "c_out", "d", "state")


def inputs(length: int, groups: int, decay: float = 1.0) -> list[Tensor]:
    tensors, state = ssd_inputs(length, heads=2, groups=groups, channels=16, size=32, decay=decay)
    return [*tensors, torch.tensor([1.0, -0.5]), state]


def reference(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b_in: Tensor,
    c_out: Tensor,
    d: Tensor,
    state: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    y, last = reference_scan(x, dt, a, b_in, c_out, state, seq_idx)
    return y + x * d[:, None], last


def with_gradients(scan: object, tensors: list[Tensor], *, last_counts: bool) -> dict[str, Tensor]:
    """Outputs, and the gradients of a random weighing of them."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    y, last = scan(*leaves)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(found.shape, generator=generator).to(found) for found in (y, last)]
    loss = (y * weights[0]).sum() + ((last * weights[1]).sum() if last_counts else 0)
    return dict(zip(NAMES, [y.detach(), last.detach(), *torch.autograd.grad(loss, leaves)], strict=False))


def rounded(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The tensors on the device, those that products read (x, B and C) in ``dtype``."""
    return [tensor.to(DEVICE, dtype if place in (0, 3, 4) else None) for place, tensor in enumerate(tensors)]


@pytest.mark.parametrize(
    ("length", "groups", "from_state", "last_counts"),
    [(7, 1, False, False), (64, 2, True, False), (150, 1, True, True), (150, 2, False, True)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (HALF, 3e-2)])
def test_equals_recurrence(
    length: int, groups: int, from_state: bool, last_counts: bool, dtype: torch.dtype, tolerance: float
) -> None:
    tensors = rounded(inputs(length, groups)[: None if from_state else -1], dtype)
    found = with_gradients(training_scan, tensors, last_counts=last_counts)
    expected = with_gradients(reference, [tensor.double() for tensor in tensors], last_counts=last_counts)
    assert found["y"].dtype == found["x"].dtype == dtype
    assert found["last"].dtype == found["dt"].dtype == torch.float32
    for name, value in expected.items():
        assert relative_error(found[name], value) <= tolerance, name


@pytest.mark.parametrize("from_state", [False, True])
def test_long_rows_are_read_in_segments(from_state: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SIZE", 16)
    monkeypatch.setattr(module, "_PROGRAMS", 12)
    tensors = rounded(inputs(200, 1)[: None if from_state else -1], torch.float32)
    assert module._Cut.of(tensors[0], tensors[3], 16).segments == 3
    found = with_gradients(training_scan, tensors, last_counts=from_state)
    expected = with_gradients(reference, [tensor.double() for tensor in tensors], last_counts=from_state)
    for name, value in expected.items():
        assert relative_error(found[name], value) <= 1e-4, name


@pytest.mark.parametrize(("length", "programs"), [(150, 768), (200, 12)])
@pytest.mark.parametrize("from_state", [False, True])
def test_sequences_that_share_a_row_start_anew(
    length: int, programs: int, from_state: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_SIZE", 16)
    monkeypatch.setattr(module, "_PROGRAMS", programs)
    tensors = rounded(inputs(length, 2)[: None if from_state else -1], torch.float32)
    # Short ones within a chunk, borders at a chunk's and beside it, one over several chunks and segments.
    rows = [[1, 2, 1, 12, 16, 17, 70], [95, 1, 1]]
    seq_idx = torch.cat([marks([*row, length - sum(row)], 1) for row in rows]).to(DEVICE)
    first = tensors[6:] or [None]
    found = with_gradients(lambda *t: training_scan(*t[:6], *(t[6:] or first), seq_idx), tensors, last_counts=True)
    expected = with_gradients(
        lambda *t: reference(*t[:6], *(t[6:] or first), seq_idx), [t.double() for t in tensors], last_counts=True
    )
    for name, value in expected.items():
        assert relative_error(found[name], value) <= 1e-4, name


def test_strong_decay_stays_finite() -> None:
    tensors = rounded(inputs(100, 1, decay=3000.0), torch.float32)
    for name, value in with_gradients(training_scan, tensors, last_counts=True).items():
        assert torch.isfinite(value).all(), name


def test_reads_views_without_copying_them() -> None:
    x, dt, a, b_in, c_out, d, _ = inputs(70, 2)
    together = torch.cat([x.flatten(2), b_in.flatten(2), c_out.flatten(2)], dim=-1).to(DEVICE)

    def cut(
        together: Tensor, dt: Tensor, a: Tensor, d: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        x, b_in, c_out = together.split([32, 64, 64], dim=-1)
        x, b_in, c_out = x.unflatten(2, (2, 16)), b_in.unflatten(2, (2, 32)), c_out.unflatten(2, (2, 32))
        assert module._by_tokens(b_in) is b_in
        return x, dt, a, b_in, c_out, d

    leaves = [together, *rounded([dt, a, d], torch.float32)]
    found = with_gradients(lambda *tensors: training_scan(*cut(*tensors)), leaves, last_counts=True)
    expected = with_gradients(
        lambda *tensors: reference(*cut(*tensors)), [leaf.double() for leaf in leaves], last_counts=True
    )
    for name, value in expected.items():
        assert relative_error(found[name], value) <= 1e-4, name


def test_b_and_c_of_no_selection_may_be_one_vector_for_all_tokens() -> None:
    x, dt, a, b_in, c_out, d, _ = rounded(inputs(70, 1), torch.float32)

    def constant(x: Tensor, b_in: Tensor, c_out: Tensor) -> list[Tensor]:
        return [x, dt.to(x.dtype), a.to(x.dtype), *(t.expand(2, 70, 1, 32) for t in (b_in, c_out)), d.to(x.dtype)]

    leaves = [x, b_in[0, 0], c_out[0, 0]]
    found = with_gradients(lambda *tensors: training_scan(*constant(*tensors)), leaves, last_counts=False)
    expected = with_gradients(
        lambda *tensors: reference(*constant(*tensors)), [leaf.double() for leaf in leaves], last_counts=False
    )
    for name, value in expected.items():
        assert relative_error(found[name], value) <= 1e-4, name


def test_operators_keep_torchs_rules() -> None:
    *tensors, state = rounded(inputs(40, 1), torch.float32)
    seq_idx = marks([13, 27], 2).to(DEVICE)
    y, last, kept = module._scan(*tensors, state, seq_idx, True, 16)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    for first in (None, state):
        torch.library.opcheck(module._scan, (*leaves, first, seq_idx, True, 16))
    x, dt, a, b_in, c_out, d = (tensor.detach() for tensor in tensors)
    torch.library.opcheck(module._scan_backward, (y, last, x, dt, a, b_in, c_out, d, seq_idx, kept, True, 16))


def test_compiles_without_a_break_in_the_graph() -> None:
    tensors = rounded(inputs(40, 1), torch.float32)
    compiled = torch.compile(training_scan, backend="aot_eager", fullgraph=True, dynamic=False)
    found = with_gradients(compiled, tensors, last_counts=True)
    expected = with_gradients(training_scan, tensors, last_counts=True)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_mixer_without_selection_takes_it_where_it_covers(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = tiny_config(architecture="mamba2", head_dim=16, d_state=16, selective=False)
    mixer = Mamba2Mixer(config).to(DEVICE)
    u = torch.randn(2, 40, config.d_model, device=DEVICE)
    seq_idx = torch.cat([marks([3, 37], 1), marks([21, 19], 1)]).to(DEVICE)
    packing = Packing.of_sequences(seq_idx) if packed else None

    def read() -> list[Tensor]:
        y, _ = mixer(u, None, packing)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), list(mixer.parameters()))]

    expected = read()  # float32, which it does not cover
    calls: list[int] = []
    monkeypatch.setattr(module, "covers", lambda x, channels, d_state: not calls.append(d_state))
    for value, other in zip(read(), expected, strict=True):
        assert relative_error(value, other) <= 1e-4
    assert calls == [16]

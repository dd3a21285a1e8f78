"""A Mamba-2 layer's core for training against plain torch: values and gradients.

On a GPU, or on a CPU with Triton's interpreter (TRITON_INTERPRET=1), which has no products of bfloat16.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.registry import lookup_backend

from encoder.kernels import training_mixer as module
from encoder.kernels import training_scan
from encoder.mixers import LayerState, Mamba2Mixer
from encoder.packing import Packing
from tests.scans import marks, relative_error
from tests.tiny_model import tiny_config

triton = pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(
    DEVICE == "cpu" and not triton.knobs.runtime.interpret, reason="needs a GPU, or TRITON_INTERPRET=1"
)
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16


def random_mixer(groups: int = 1) -> Mamba2Mixer:
    """A layer with nothing at its initial, symmetric value; four heads, and a width that is no multiple of 16."""
    torch.manual_seed(0)
    config = tiny_config(architecture="mamba2", head_dim=16, d_state=16, n_groups=groups)
    mixer = Mamba2Mixer(config).to(DEVICE)
    with torch.no_grad():
        for parameter in (mixer.D, mixer.norm.weight, mixer.conv1d.bias):
            parameter.add_(0.3 * torch.randn_like(parameter))
        mixer.dt_bias.add_(2.0)
        mixer.in_proj.weight.mul_(3.0)
    return mixer


def packing_of(rows: list[list[int]]) -> Packing:
    return Packing.of_sequences(torch.cat([marks(row, 1) for row in rows]).to(DEVICE))


def read(
    mixer: Mamba2Mixer, u: Tensor, state: LayerState | None, packing: Packing | None, *, last_counts: bool
) -> dict[str, Tensor]:
    """Outputs of a layer, and the gradients of a random weighing of them."""
    leaves = {"u": u, **dict(mixer.named_parameters())}
    if state is not None:
        leaves |= state._asdict()
        state = LayerState(*(tensor.requires_grad_() for tensor in state))
    y, after = mixer(u.requires_grad_(), state, packing)
    generator = torch.Generator().manual_seed(1)

    def weighed(found: Tensor) -> Tensor:
        return (found * torch.randn(found.shape, generator=generator).to(found)).sum()

    found = {"y": y.detach()}
    loss = weighed(y)
    if last_counts:
        found |= {f"after.{name}": value.detach() for name, value in after._asdict().items()}
        loss = loss + weighed(after.conv) + weighed(after.ssm)
    return found | dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def both(
    monkeypatch: pytest.MonkeyPatch, read_with: Callable[[], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What kernels and plain torch give for the same."""
    with monkeypatch.context() as patched:
        patched.setattr(training_scan, "covers", lambda *_: True)
        found = read_with()
    return found, read_with()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.any():
            assert relative_error(found[name], value) <= tolerance, name
        else:  # of one token nothing decays: on a GPU the terms of that 0 cancel but for their last bits
            assert float(found[name].abs().max()) <= 1e-7, name


@pytest.mark.parametrize("length", [1, 2, 3, 64, 130])
@pytest.mark.parametrize(("groups", "from_state"), [(1, False), (2, True)])
def test_equals_plain_torch(length: int, groups: int, from_state: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = random_mixer(groups)
    config = mixer.config
    u = torch.randn(2, length, config.d_model, device=DEVICE)
    state = None
    if from_state:
        conv = torch.randn(2, config.d_conv - 1, mixer.conv_width, device=DEVICE)
        state = LayerState(conv, torch.randn(2, config.n_heads, 16, 16, device=DEVICE))
    assert_same(*both(monkeypatch, lambda: read(mixer, u, state, None, last_counts=from_state)))


def test_equals_plain_torch_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = random_mixer()
    u = torch.randn(2, 70, mixer.config.d_model, device=DEVICE)
    expected = read(mixer, u, None, None, last_counts=False)
    monkeypatch.setattr(training_scan, "covers", lambda *_: True)
    found = read(mixer, u.detach().to(HALF), None, None, last_counts=False)
    assert found["y"].dtype == found["u"].dtype == HALF
    assert found["conv1d.weight"].dtype == torch.float32
    assert_same(found, expected, 3e-2)


ROWS = [[1, 2, 1, 60, 1, 35, 30], [129, 1]]


@pytest.mark.parametrize("groups", [1, 2])
def test_rows_of_several_sequences_equal_plain_torch(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = random_mixer(groups)
    u = torch.randn(2, 130, mixer.config.d_model, device=DEVICE)
    packing = packing_of(ROWS)
    assert_same(*both(monkeypatch, lambda: read(mixer, u, None, packing, last_counts=False)))


@pytest.mark.parametrize("kernels", [False, True])
def test_a_sequence_in_a_row_is_as_if_alone(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels:
        monkeypatch.setattr(training_scan, "covers", lambda *_: True)
    mixer = random_mixer()
    u = torch.randn(2, 130, mixer.config.d_model, device=DEVICE, requires_grad=True)
    weights = torch.randn_like(u)

    def gradients(y: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((y * weights).sum(), [u, *mixer.parameters()])

    together, _ = mixer(u, None, packing_of(ROWS))
    found = gradients(together, weights)
    expected = [torch.zeros_like(gradient) for gradient in found]
    for row, lengths in enumerate(ROWS):
        parts = zip(u[row].split(lengths), together[row].split(lengths), weights[row].split(lengths), strict=True)
        for part, packed, weight in parts:
            alone, _ = mixer(part[None])
            assert relative_error(packed.detach(), alone[0].detach()) <= 1e-5
            for total, gradient in zip(expected, gradients(alone, weight), strict=True):
                total += gradient
    for total, gradient in zip(expected, found, strict=True):
        assert relative_error(gradient, total) <= 1e-4


def test_the_padding_of_in_proj_has_no_gradient() -> None:
    mixer = random_mixer()
    projected = torch.randn(2, 20, mixer.in_proj.out_features + 4, device=DEVICE, requires_grad=True)
    y, _, _ = module.mixer_core(projected, parameters(mixer), 1, 1e-5)
    (gradient,) = torch.autograd.grad(y.sum(), projected)
    assert not gradient[..., -4:].any()
    assert gradient[..., :-4].any()


def parameters(mixer: Mamba2Mixer) -> module.Parameters:
    a = -torch.exp(mixer.A_log)
    return module.Parameters(mixer.conv1d.weight[:, 0], mixer.conv1d.bias, mixer.dt_bias, a, mixer.D, mixer.norm.weight)


def test_operators_keep_torchs_rules() -> None:
    mixer = random_mixer(2)
    config = mixer.config
    projected = torch.randn(2, 20, mixer.in_proj.out_features, device=DEVICE)
    own = [tensor.detach().clone() for tensor in parameters(mixer)]
    tail = torch.randn(2, config.d_conv - 1, mixer.conv_width, device=DEVICE)
    state = torch.randn(2, config.n_heads, 16, 16, device=DEVICE)
    seq_idx = marks([13, 7], 2).to(DEVICE)
    y, after, last, *saved = module._core(projected, *own, tail, state, None, 2, 1e-5, True)
    for first in ((None, None, seq_idx), (tail, state, None)):
        leaves = [tensor.requires_grad_() for tensor in (projected, *own)]
        torch.library.opcheck(module._core, (*leaves, *first, 2, 1e-5, True))
    leaves = [tensor.detach() for tensor in (projected, *own)]
    torch.library.opcheck(module._core_backward, (y, after, last, *leaves, tail, None, *saved, True))


@pytest.mark.parametrize("packed", [False, True])
def test_compiles_without_a_break_in_the_graph(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_scan, "covers", lambda *_: True)
    mixer = random_mixer()
    u = torch.randn(2, 130, mixer.config.d_model, device=DEVICE)
    packing = packing_of(ROWS) if packed else None
    expected = read(mixer, u, None, packing, last_counts=not packed)
    mixer.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    assert_same(read(mixer, u, None, packing, last_counts=not packed), expected, 1e-5)


def test_compiles_once_for_any_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_scan, "covers", lambda *_: True)
    mixer = random_mixer()
    rows = [[5, 15], [20], [1, 19], [7, 13], [19, 1]]
    u = torch.randn(len(rows), 20, mixer.config.d_model, device=DEVICE)
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, examples: list[object]) -> object:
        graphs.append(graph)
        return lookup_backend("aot_eager")(graph, examples)

    compiled = torch.compile(mixer, backend=backend, fullgraph=True, dynamic=None)
    for count in (2, 3, 5):
        with torch.no_grad():
            expected, _ = mixer(u[:count], None, packing_of(rows[:count]))
        found, _ = compiled(u[:count].clone(), None, packing_of(rows[:count]))
        found.sum().backward()
        torch.testing.assert_close(found.detach(), expected)
    assert len(graphs) == 2  # of two rows, and of any


def test_covers_what_the_kernels_are_written_for() -> None:
    projected = torch.empty(1, 1, 8, dtype=torch.bfloat16, device=DEVICE)
    config = tiny_config(architecture="mamba2", head_dim=16, d_state=16)
    assert module.covers(projected, config) == (DEVICE == "cuda")
    assert not module.covers(projected.float(), config)
    for other in ({"selective": False}, {"d_conv": 3}, {"d_state": 24}):
        assert not module.covers(projected, config.model_copy(update=other))

"""Self-attention is the paper's formula, and goes where it is asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distgan.models.attention import SelfAttention2d, attention_stage
from layer_table import parameters

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


def project(convolution: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(convolution, nn.Conv2d)
    y = torch.einsum("vc,nchw->nvhw", convolution.weight[:, :, 0, 0], x)
    return y if convolution.bias is None else y + convolution.bias[:, None, None]


def literal(layer: SelfAttention2d, x: Tensor, pooled: bool) -> Tensor:
    """β_ji = exp(s_ij) / Σ_i exp(s_ij), s_ij = f(x_i)ᵀ g(x_j); o_j = Σ_i β_ji h(x_i); y = γ·o + x."""
    f, g, h = (project(each, x) for each in (layer.f, layer.g, layer.h))
    if pooled:
        f, h = F.max_pool2d(f, 2), F.max_pool2d(h, 2)
    exponentials = torch.einsum("nkhw,nkab->nhwab", f, g).exp()
    beta = exponentials / exponentials.sum((1, 2), keepdim=True)
    o = torch.einsum("nhwab,nvhw->nvab", beta, h)
    return layer.gamma * (project(layer.last, o) if pooled else o) + x


@pytest.mark.parametrize(("form", "count"), [("plain", 5_201), ("pooled", 5_121)])
def test_attention_is_the_formula(form: str, count: int) -> None:
    torch.manual_seed(0)
    layer = SelfAttention2d(64, form).double()
    assert parameters(layer) == count
    x = torch.randn(3, 64, 6, 4, dtype=torch.float64)
    assert torch.equal(layer(x), x)
    nn.init.constant_(layer.gamma, 0.7)
    found = layer(x)
    torch.testing.assert_close(found, literal(layer, x, form == "pooled"), rtol=1e-12, atol=1e-12)
    assert (found - x).abs().mean() > 0.01
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["plain", "pooled"])
def test_attention_can_be_penalized(form: str) -> None:
    torch.manual_seed(0)
    layer = SelfAttention2d(8, form).double()
    nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(1, 8, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.parametrize("channels", [1, 4, 12, 63])
def test_channels_that_8_does_not_divide_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"divides its channels by 8, and its stage has {channels}"):
        SelfAttention2d(channels)


def test_where_attention_goes() -> None:
    assert attention_stage(None, 128, [8, 16, 32, 64, 128]) == 2
    assert attention_stage(None, 32, [16, 8, 8, 8]) == 0
    assert attention_stage(8, 32, [16, 8, 8, 8]) == 1
    with pytest.raises(ValueError, match=r"attention_at=12: no stage of the network has that size.*one of 8, 16"):
        attention_stage(12, 32, [16, 8, 8, 8])

"""LoRA layers with fewer passes over memory: the adapter's part is added inside the matrix product.

PEFT computes base, product, scaled product and sum as four tensors of the layer's output; on a CPU each
is a trip to main memory. Here the sum is the product's own accumulation, forward and backward.
"""

from __future__ import annotations

from typing import Any

__all__ = ["apply"]


def _function(torch: Any) -> Any:
    class LeanLora(torch.autograd.Function):  # type: ignore[misc]
        """y = x Wᵀ + bias + scale · (x Aᵀ) Bᵀ with frozen W and bias."""

        @staticmethod
        def forward(ctx: Any, x: Any, w: Any, bias: Any, a: Any, b: Any, scale: float) -> Any:
            """Shapes: x [..., in], w [out, in], a [rank, in], b [out, rank]; gives [..., out]."""
            flat = x.reshape(-1, x.shape[-1])
            low = flat @ a.t()
            y = torch.nn.functional.linear(flat, w, bias)
            y.addmm_(low, b.t(), alpha=scale)
            ctx.save_for_backward(flat, low, w, a, b)
            ctx.scale, ctx.shape = scale, x.shape
            return y.view(*x.shape[:-1], w.shape[0])

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
            """Gradients of x, a and b."""
            flat, low, w, a, b = ctx.saved_tensors
            g = gradient.reshape(-1, w.shape[0])
            g_low = (g @ b).mul_(ctx.scale)
            gx = None
            if ctx.needs_input_grad[0]:
                gx = (g @ w).addmm_(g_low, a).view(ctx.shape)
            return gx, None, None, g_low.t() @ flat, (g.t() @ low).mul_(ctx.scale), None

    return LeanLora


def apply(model: Any) -> int:
    """Give every plain LoRA layer of a PEFT model the lean forward; return how many got it.

    Only where nothing else happens: one adapter, unmerged, no dropout, no bias of its own, no variant,
    weights of one type. Other layers keep PEFT's forward.
    """
    import torch
    from peft.tuners.lora import Linear

    function, count = _function(torch), 0
    for layer in model.modules():
        if type(layer) is Linear and _plain(layer, torch):
            name = layer.active_adapters[0]
            layer.forward = _forward(function, layer, name)
            count += 1
    return count


def _plain(layer: Any, torch: Any) -> bool:
    base = layer.get_base_layer()
    if type(base) is not torch.nn.Linear or len(layer.active_adapters) != 1 or layer.merged:
        return False
    name = layer.active_adapters[0]
    down, up = layer.lora_A[name], layer.lora_B[name]
    same = base.weight.dtype == down.weight.dtype == up.weight.dtype
    frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
    idle = type(layer.lora_dropout[name]) is torch.nn.Identity and name not in layer.lora_variant
    return bool(same and frozen and idle and down.bias is None and up.bias is None)


def _forward(function: Any, layer: Any, name: str) -> Any:
    base, down, up, scale = (
        layer.get_base_layer(),
        layer.lora_A[name],
        layer.lora_B[name],
        layer.scaling[name],
    )

    def forward(x: Any, *args: Any, **kwargs: Any) -> Any:
        return function.apply(x, base.weight, base.bias, down.weight, up.weight, scale)

    return forward

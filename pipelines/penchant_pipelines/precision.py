"""Arithmetic in bfloat16: half the time of a step where the hardware has it, about the same result."""

from __future__ import annotations

import torch


def has_bfloat16(device: str) -> bool:
    """Tell whether a device, such as "cpu" or "cuda:0", has arithmetic of its own for bfloat16: else it is slower."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return kind == "cpu" and bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def in_half(device: str) -> torch.autocast:
    """A context of bfloat16 arithmetic where the device has it."""
    return torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=has_bfloat16(device))

"""Half precision is used where the hardware has it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penchant_pipelines.precision import has_bfloat16, in_half


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the system tells of the processor elsewhere")
def test_bfloat16_is_used_where_the_processor_has_it() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert has_bfloat16("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})
    assert not has_bfloat16("mps")
    with in_half("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if has_bfloat16("cpu") else torch.float32)

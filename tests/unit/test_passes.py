"""Which texts go through the model together must not show in their vectors."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant_pipelines.encoder import Encoder, EncoderSettings
from penchant_pipelines.encoder.passes import LEAST_TOKENS, PASS_TOKENS, packed, padded
from penchant_pipelines.encoder.sentence import open_model

TEXTS = [
    "",
    "a",
    "!?",
    "茶",
    "the espresso was bright and sweet",
    "手冲咖啡的水温很重要",
    "我昨天 reviewed a keyboard ⌨️",
    "trail running at dawn, twelve kilometres, mud to the knees",
    "long walks, " * 30,
    "longer than the model reads, " * 90,
]


@given(company=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_vector_is_the_same_to_the_last_bit_in_any_company(encoder: Encoder, company: list[str]) -> None:
    alone = {text: encoder.encode([text])[0] for text in set(company)}
    np.testing.assert_array_equal(encoder.encode(company), [alone[text] for text in company])


def test_packed_and_padded_texts_are_read_alike(encoder: Encoder) -> None:
    model = open_model(EncoderSettings(device="cpu"))[0]
    features = model.preprocess(TEXTS)
    found = np.zeros((len(TEXTS), encoder.dimensions), dtype=np.float32)
    with torch.inference_mode():
        for rows, part in padded(features, 64, pad_token=0):
            found[rows] = model(copy.copy(part))["sentence_embedding"].numpy()
    np.testing.assert_allclose(encoder.encode(TEXTS), found, atol=1e-6)


@pytest.mark.parametrize("most_texts", [1, 3, 64])
def test_each_text_is_packed_and_no_pass_is_too_large_or_too_small(most_texts: int) -> None:
    lengths = [2, 900, 3, 1200, 700, 2, 5, 40]
    mask = torch.tensor([[1] * length + [0] * (1200 - length) for length in lengths])
    features = {"input_ids": mask * torch.arange(1, 9)[:, None], "attention_mask": mask, "modality": "text"}
    seen: list[int] = []
    for rows, part in packed(features, most_texts):
        found = part["input_ids"][0].tolist()
        assert LEAST_TOKENS <= len(found) <= PASS_TOKENS
        assert found == [row + 1 for row in rows for _ in range(lengths[row])]
        assert part["position_ids"][0].tolist() == [place for row in rows for place in range(lengths[row])]
        assert [length for count, length in part["runs"] for _ in range(count)] == [lengths[row] for row in rows]
        assert len(set(rows)) <= most_texts
        seen.extend(set(rows.tolist()))
    assert sorted(seen) == list(range(len(lengths)))


def test_padded_texts_take_their_own_width() -> None:
    mask = torch.tensor([[1] * 5 + [0] * 7, [1] * 12, [1] * 8 + [0] * 4])
    parts = list(padded({"input_ids": mask, "attention_mask": mask}, 64, pad_token=7))
    assert [(rows.tolist(), tuple(part["input_ids"].shape)) for rows, part in parts] == [
        ([0], (1, 8)), ([2], (1, 8)), ([1], (1, 16)),
    ]  # fmt: skip
    assert parts[2][1]["input_ids"][0].tolist() == [1] * 12 + [7] * 4

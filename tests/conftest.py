"""What every kind of test may share: the embedded encoder is loaded once."""

from __future__ import annotations

import os

import pytest

# gRPC's core writes to stderr by itself, into what other tests capture. It reads this when it is first used.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from penchant_pipelines.encoder import Encoder, EncoderSettings, open_encoder
from penchant_pipelines.interests.calibration import calibrate


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return open_encoder(EncoderSettings())


@pytest.fixture(scope="session")
def similarity(encoder: Encoder) -> float:
    """θ of the embedded encoder: measured once here rather than for each data folder."""
    return calibrate(encoder.encode)

"""What a GPU does is among the numbers for Prometheus."""

from __future__ import annotations

import time

import pytest
import torch
from makers.exposition import parsed

from wham_data.cli.progress.metrics import Metrics


@pytest.mark.gpu
def test_a_gpu_at_work_is_reported(cuda: str) -> None:
    square, end = torch.ones(4096, 4096, device=cuda), time.monotonic() + 3
    while time.monotonic() < end:
        square = (square @ square).clamp(0, 1)
        torch.cuda.synchronize()

    busy = parsed(Metrics("dream").page())["wham_data_gpu_busy_ratio"].samples
    assert max(busy.values()) > 0.5

"""The client of a model server whose caller goes away."""

from __future__ import annotations

import asyncio
import socket

import numpy as np
import pytest

from barcast.serving.breaker import Breaker
from barcast.serving.client import ModelCallError, ModelClient


def test_a_trial_whose_caller_went_away_is_followed_by_another() -> None:
    inputs = {"window": np.zeros((1, 2, 3), dtype=np.float32)}

    async def main(endpoint: str, breaker: Breaker) -> None:
        client = ModelClient(endpoint, deadline_seconds=0.2, retries=0, breaker=breaker)
        with pytest.raises(ModelCallError, match="DEADLINE_EXCEEDED"):
            await client.predict_async("m", inputs)
        assert breaker.state == "open"
        await asyncio.sleep(0.05)
        trial = asyncio.create_task(client.predict_async("m", inputs, deadline_seconds=60.0))
        await asyncio.sleep(0.05)
        assert not breaker.allow()  # one trial is on its way
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        await client.close_async()

    breaker = Breaker(1, 0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        asyncio.run(main(f"127.0.0.1:{silent.getsockname()[1]}", breaker))
    assert breaker.allow()

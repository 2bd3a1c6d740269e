"""Behind a headless Service the client sees every model server and takes turns among them, on one channel."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from model_double import ModelDouble, outputs

from barcast.serving.client import ModelClient

INPUTS = {"window": np.zeros((1, 2, 3), np.float32), "symbol_id": np.zeros(1, np.int32)}


@pytest.fixture
def doubles():
    """Three model servers, as a headless Service's name would resolve to them."""
    found = [ModelDouble() for _ in range(3)]
    for double in found:
        double.models["daily.AAPL", 1] = outputs((0.2, 0.3, 0.5))
    yield found
    for double in found:
        double.stop()


def client_of(doubles):
    return ModelClient("ipv4:" + ",".join(double.endpoint for double in doubles), retries=3)


def test_calls_spread_evenly_over_the_servers(doubles):
    client = client_of(doubles)
    while not all(double.calls for double in doubles):  # until every connection stands
        client.predict("daily.AAPL", INPUTS, version=1)
    before = [len(double.calls) for double in doubles]
    for _ in range(30):
        client.predict("daily.AAPL", INPUTS, version=1)
    assert [len(double.calls) - n for double, n in zip(doubles, before, strict=True)] == [10, 10, 10]
    client.close()


def test_a_server_that_goes_leaves_the_others_answering(doubles):
    client = client_of(doubles)
    while not all(double.calls for double in doubles):
        client.predict("daily.AAPL", INPUTS, version=1)
    doubles[0].stop()
    for _ in range(12):
        assert client.predict("daily.AAPL", INPUTS, version=1).version == 1
    client.close()


def test_the_asynchronous_channel_takes_turns_too(doubles):
    client = client_of(doubles)

    async def ask() -> None:
        while not all(double.calls for double in doubles):
            await client.predict_async("daily.AAPL", INPUTS, version=1)
        await client.close_async()

    asyncio.run(asyncio.wait_for(ask(), 30))
    client.close()

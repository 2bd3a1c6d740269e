"""Batching: joined runs give each request its own rows; limits, padding and errors are TensorFlow Serving's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barcast.errors import ConfigError
from barcast.serving.model_server.batching import BatchScheduler, _join
from barcast.serving.model_server.batching_parameters import BatchingParameters, read_parameters
from barcast.serving.model_server.metrics import PROCESSED_BATCH_SIZE, RUN_COUNT, Metrics
from barcast.serving.model_server.servable import Servable
from barcast.serving.model_server.status import Code, StatusError

Run = Callable[[Servable, BatchScheduler], Awaitable[Any]]


def batched(path: Path, params: BatchingParameters, body: Run) -> tuple[Any, Metrics]:
    """Run `body` with a servable and a scheduler on a fresh loop."""
    metrics = Metrics()
    servable = Servable("m", 1, path, batch_sizes=(), batching=params)

    async def main() -> Any:
        scheduler = BatchScheduler(params.num_batch_threads, metrics)
        try:
            return await body(servable, scheduler)
        finally:
            scheduler.stop()

    return asyncio.run(main()), metrics


def ask(servable: Servable, scheduler: BatchScheduler, x: np.ndarray, limit: float | None = None) -> Any:
    return scheduler.run(servable, "serving_default", {"x": x}, ["y"], limit)


def rows(count: int, seed: int = 0, width: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def test_concurrent_requests_share_runs_and_keep_their_rows(affine_path: Path) -> None:
    params = BatchingParameters(max_batch_size=16, batch_timeout_micros=50_000, num_batch_threads=1)
    inputs = [rows(1 + seed % 3, seed) for seed in range(40)]

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await asyncio.gather(*(ask(servable, scheduler, x) for x in inputs))

    found, metrics = batched(affine_path, params, body)
    for x, answer in zip(inputs, found, strict=True):
        np.testing.assert_allclose(answer["y"], x * 2 + 1, rtol=1e-6)
    assert metrics.total(RUN_COUNT) < 10


def test_rows_that_do_not_lie_together_in_memory_are_joined_too(affine_path: Path) -> None:
    params = BatchingParameters(max_batch_size=4, batch_timeout_micros=500_000, num_batch_threads=1)
    inputs = [np.asfortranarray(rows(2, 1)), rows(2, 2)]

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await asyncio.gather(*(ask(servable, scheduler, x) for x in inputs))

    found, metrics = batched(affine_path, params, body)
    for x, answer in zip(inputs, found, strict=True):
        np.testing.assert_allclose(answer["y"], x * 2 + 1, rtol=1e-6)
    assert metrics.total(RUN_COUNT) == 1


@pytest.mark.parametrize("kind", ["float32", "bool", "int64", "complex64", "bfloat16", "object"])
@pytest.mark.parametrize("shape", [(2, 3), (2,), (0, 3), (2, 0)])
def test_every_type_is_joined(kind: str, shape: tuple[int, ...]) -> None:
    import ml_dtypes  # gives NumPy the type bfloat16

    values = np.arange(np.prod(shape)).reshape(shape)
    array = values.astype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    joined = _join([array, array], 0)
    assert joined.dtype == array.dtype
    np.testing.assert_array_equal(joined, np.concatenate([array, array]))


def test_a_lone_request_waits_no_longer_than_the_timeout(affine_path: Path) -> None:
    params = BatchingParameters(max_batch_size=16, batch_timeout_micros=200_000, num_batch_threads=1)

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        await ask(servable, scheduler, rows(16))  # full: at once, and the graph is warm
        began = time.monotonic()
        await ask(servable, scheduler, rows(1))
        return time.monotonic() - began

    waited, _ = batched(affine_path, params, body)
    assert 0.19 < waited < 5


def test_batches_are_padded_to_an_allowed_size(affine_path: Path) -> None:
    params = BatchingParameters(max_batch_size=8, allowed_batch_sizes=(4, 8), num_batch_threads=1)

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await ask(servable, scheduler, rows(3))

    found, metrics = batched(affine_path, params, body)
    assert found["y"].shape == (3, 3)
    assert 'processed_batch_size_sum{thread_pool_name="batch_threads"} 4' in metrics.text()
    assert metrics.total(PROCESSED_BATCH_SIZE) == 1


def test_a_request_that_is_too_large_is_refused_or_cut(affine_path: Path) -> None:
    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await ask(servable, scheduler, rows(9))

    with pytest.raises(StatusError, match="Task size 9 is larger than maximum input batch size 8") as refused:
        batched(affine_path, BatchingParameters(max_batch_size=8), body)
    assert refused.value.code == Code.INVALID_ARGUMENT
    cutting = BatchingParameters(
        max_batch_size=8, enable_large_batch_splitting=True, max_execution_batch_size=4
    )
    found, metrics = batched(affine_path, cutting, body)
    np.testing.assert_allclose(found["y"], rows(9) * 2 + 1, rtol=1e-6)
    assert metrics.total(RUN_COUNT) == 3


def test_a_full_queue_refuses(affine_path: Path) -> None:
    params = BatchingParameters(
        max_batch_size=2, batch_timeout_micros=10_000_000, max_enqueued_batches=1, num_batch_threads=1
    )

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        calls = [asyncio.ensure_future(ask(servable, scheduler, rows(2, seed))) for seed in range(6)]
        return await asyncio.gather(*calls, return_exceptions=True)

    found, _ = batched(affine_path, params, body)
    refused = [error for error in found if isinstance(error, StatusError)]
    assert refused
    assert {error.code for error in refused} == {Code.UNAVAILABLE}
    assert "max_enqueued_batches is 1" in refused[0].message
    assert len(refused) < len(found)


def test_different_inner_shapes_never_meet(affine_path: Path) -> None:
    params = BatchingParameters(max_batch_size=16, batch_timeout_micros=50_000, num_batch_threads=1)

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await asyncio.gather(
            *(ask(servable, scheduler, rows(1, seed, width=3 + seed % 2)) for seed in range(8))
        )

    found, _ = batched(affine_path, params, body)
    assert [answer["y"].shape for answer in found] == [(1, 3), (1, 4)] * 4


def test_variable_length_inputs_can_be_padded(affine_path: Path) -> None:
    params = BatchingParameters(
        max_batch_size=2, batch_timeout_micros=5_000_000, num_batch_threads=1, pad_variable_length_inputs=True
    )

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await asyncio.gather(
            ask(servable, scheduler, rows(1, 1, 3)), ask(servable, scheduler, rows(1, 2, 5))
        )

    (short, long), metrics = batched(affine_path, params, body)
    assert metrics.total(RUN_COUNT) == 1
    assert short["y"].shape == long["y"].shape == (1, 5)
    np.testing.assert_array_equal(short["y"][0, 3:], [1.0, 1.0])


def test_inputs_without_a_common_batch_dimension_are_refused(rich_path: Path) -> None:
    async def unequal(servable: Servable, scheduler: BatchScheduler) -> Any:
        inputs = {"a": np.ones((2, 2), np.float32), "b": np.ones(3, np.int32)}
        return await scheduler.run(servable, "two", inputs, ["sum"], None)

    async def scalar(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await scheduler.run(servable, "slow", {"x": np.float32(1), "steps": np.int32(1)}, ["y"], None)

    with pytest.raises(StatusError, match="must have equal 0th-dimension size"):
        batched(rich_path, BatchingParameters(), unequal)
    with pytest.raises(StatusError, match="must have at least one dimension"):
        batched(rich_path, BatchingParameters(), scalar)


def test_an_output_without_batch_dimension_is_refused(rich_path: Path) -> None:
    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await scheduler.run(servable, "total", {"x": rows(2)}, ["total"], None)

    with pytest.raises(StatusError, match="Batched output tensor has 0 dimensions") as refused:
        batched(rich_path, BatchingParameters(), body)
    assert refused.value.code == Code.FAILED_PRECONDITION


def test_time_that_passed_in_the_queue_is_named(affine_path: Path) -> None:
    params = BatchingParameters(max_batch_size=16, batch_timeout_micros=300_000, num_batch_threads=1)

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await ask(servable, scheduler, rows(1), time.monotonic() + 0.05)

    with pytest.raises(StatusError, match="timeout exceeded while waiting in batching queue") as refused:
        batched(affine_path, params, body)
    assert refused.value.code == Code.RESOURCE_EXHAUSTED


def test_a_client_that_went_away_is_not_run(affine_path: Path) -> None:
    params = BatchingParameters(max_batch_size=16, batch_timeout_micros=300_000, num_batch_threads=1)

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        gone = asyncio.ensure_future(ask(servable, scheduler, rows(1)))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.4)

    _, metrics = batched(affine_path, params, body)
    assert metrics.total(RUN_COUNT) == 0


def test_the_parameter_file_is_tensorflow_servings(tmp_path: Path) -> None:
    file = tmp_path / "batching.config"
    file.write_text(
        "max_batch_size { value: 8 }\nbatch_timeout_micros { value: 100 }\nmax_enqueued_batches { value: 5 }\n"
        "num_batch_threads { value: 2 }\nallowed_batch_sizes: 4\nallowed_batch_sizes: 8\n"
        'thread_pool_name { value: "mine" }\npad_variable_length_inputs: true\n'
    )
    assert read_parameters(file) == BatchingParameters(8, 100, 5, 2, (4, 8), True)
    file.write_text("max_batch_size: 8")
    with pytest.raises(ConfigError, match="Error parsing text-format BatchingParameters"):
        read_parameters(file)
    file.write_text("max_batch_size { value: -8 }")
    with pytest.raises(ConfigError, match="must be positive"):
        read_parameters(file)


@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (0, 8)])
def test_allowed_sizes_must_rise_to_the_largest(sizes: tuple[int, ...]) -> None:
    with pytest.raises(StatusError, match="allowed_batch_sizes"):
        BatchingParameters(max_batch_size=8, allowed_batch_sizes=sizes).check()


@pytest.mark.parametrize("counts", [(0,), (0, 3), (3, 0), (0, 0)])
def test_a_request_without_rows_harms_nobody_in_its_batch(affine_path: Path, counts: tuple[int, ...]) -> None:
    params = BatchingParameters(
        max_batch_size=8, allowed_batch_sizes=(4, 8), batch_timeout_micros=100_000, num_batch_threads=1
    )
    inputs = [rows(count, seed) for seed, count in enumerate(counts)]

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        return await asyncio.gather(*(ask(servable, scheduler, x) for x in inputs))

    found, metrics = batched(affine_path, params, body)
    for x, answer in zip(inputs, found, strict=True):
        np.testing.assert_allclose(answer["y"], x * 2 + 1, rtol=1e-6)
    assert metrics.total(RUN_COUNT) == 1


def test_of_a_cut_request_that_is_refused_no_piece_stays_in_the_queue(affine_path: Path) -> None:
    params = BatchingParameters(
        max_batch_size=4,
        batch_timeout_micros=200_000,
        max_enqueued_batches=2,
        num_batch_threads=1,
        enable_large_batch_splitting=True,
    )

    async def body(servable: Servable, scheduler: BatchScheduler) -> Any:
        with pytest.raises(StatusError, match="max_enqueued_batches is 2"):
            await ask(servable, scheduler, rows(20))
        await asyncio.sleep(0.5)

    _, metrics = batched(affine_path, params, body)
    assert metrics.total(RUN_COUNT) <= 1  # the piece that a thread had taken already

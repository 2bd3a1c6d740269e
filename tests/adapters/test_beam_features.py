"""A backfill of features on Beam's local runner equals the batch engine, value for value."""

from __future__ import annotations

import polars as pl
import pytest

from barcast import features
from barcast.bars import Calendar, adjusted
from barcast.bars.sources import open_source
from barcast.config import Config, load
from barcast.errors import DataError

# importing Beam takes seconds; third parties warn about one another
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def config() -> Config:
    return load(
        None,
        source={"kind": "simulator", "simulator": {"num_symbols": 3, "num_bars": 400}},
        universe={"calendar": "24/7"},
    )


@pytest.fixture(scope="module")
def bars(config, tmp_path_factory):
    rows = open_source(config.source, interval=config.interval, calendar="24/7").fetch()
    path = tmp_path_factory.mktemp("bars") / "bars.parquet"
    rows.write_parquet(path)
    return path


@pytest.mark.parametrize("processes", [0, 2])
def test_backfill_equals_the_batch_engine(config, bars, tmp_path, processes):
    from barcast.adapters import beam, beam_features

    out = beam_features.backfill(
        bars, tmp_path / "out", config, options=beam.processes(processes) if processes else ()
    )
    expected = features.compute(
        adjusted(pl.read_parquet(bars)),
        interval=config.interval,
        calendar=Calendar.of("24/7"),
        config=config.features,
    )
    found = beam_features.read(out)
    assert found.columns == expected.columns
    assert found.equals(expected, null_equal=True)
    assert len(list(out.iterdir())) == 3  # one file a symbol, no parts left


def test_a_backfill_again_replaces_the_first_and_leaves_other_symbols_out(config, bars, tmp_path):
    from barcast.adapters import beam_features

    beam_features.backfill(bars, tmp_path / "out", config)
    one = tmp_path / "one.parquet"
    pl.read_parquet(bars).filter(pl.col("symbol") == "SIM0001").write_parquet(one)
    found = beam_features.read(beam_features.backfill(one, tmp_path / "out", config))
    assert found["symbol"].unique().to_list() == ["SIM0001"]


def test_bad_input_says_what_is_wrong(config, bars, tmp_path):
    from barcast.adapters import beam_features

    rows = pl.read_parquet(bars)
    rows.clear().write_parquet(tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="no bars"):
        beam_features.backfill(tmp_path / "empty.parquet", tmp_path / "out", config)
    rows.with_columns(close=pl.lit(-1.0)).write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="backfill of features failed"):
        beam_features.backfill(tmp_path / "bad.parquet", tmp_path / "out", config)
    with pytest.raises(DataError, match="holds no features"):
        beam_features.read(tmp_path / "nothing")

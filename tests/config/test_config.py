"""The configuration schema: strict, hashed, readable when wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from barcast.config import Config, load
from barcast.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"horizont_bars: unknown key\. Did you mean 'horizon_bars'"):
        load(written(tmp_path, "horizont_bars: 3"))


def test_unknown_key_in_a_section_suggests_from_that_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.max_epoch: unknown key. Did you mean 'max_epochs'"):
        load(written(tmp_path, "training:\n  max_epoch: 3"))


@pytest.mark.parametrize("text", ["interval: 5x", "horizon_bars: 0", "approval: maybe", "seed: -1"])
def test_value_out_of_range_is_refused_with_its_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=text.partition(":")[0] + "|Interval"):
        load(written(tmp_path, text))


@pytest.mark.parametrize("value", ["2025-13-01", "'2025-13-01'", "2025-02-30T06:30:00Z", "soon"])
@pytest.mark.parametrize("section", ["", "simulator", "ccxt", "ib"])
def test_date_that_is_none_is_refused_with_key_value_and_what_is_expected(
    tmp_path: Path, section: str, value: str
) -> None:
    inner = f"{section}: {{start: {value}}}" if section else f"start: {value}"
    with pytest.raises(ConfigError) as raised:
        load(written(tmp_path, f"source: {{{inner}}}"))
    for part in (f"source.{section + '.' if section else ''}start: ", value.strip("'"), "like 2024-01-31"):
        assert part in raised.value.message


@pytest.mark.parametrize("value", ["2025-01-31", "2025-01-31T06:30:00Z", "'2025-01-31 06:30'", "''"])
def test_date_that_is_one_is_taken_with_or_without_quotes(tmp_path: Path, value: str) -> None:
    assert load(written(tmp_path, f"source: {{end: {value}}}")).source.end.startswith(
        "2025-01-31" if value != "''" else ""
    )


@pytest.mark.parametrize("text", ["- a\n- b", "just words", ":\n  - ]["])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("storage: here", "storage: "),
        ("interval: 99999999999d", "longer than time itself"),
        ("source: {start: '0001-01-01T00:00:00+05:00'}", "source.start: "),
        ("decisions: {min_edge_bps: .nan}", "decisions.min_edge_bps: .*finite"),
        ("source: {feed: {poll_seconds: .inf}}", "source.feed.poll_seconds: .*finite"),
        ("features: {categories: [ohlcv, ohlcv]}", "features.categories: a category is named twice"),
        ("splits: {validation_share: 0.6, calibration_share: 0.6}", "no times to train on"),
        ("serving: {batch_sizes: [0]}", r"serving.batch_sizes.0: "),
        ("serving: {endpoint: localhost}", "serving.endpoint: "),
        ("model: {lstm_units: [64, 0]}", r"model.lstm_units.1: "),
        ("tuning: {space: {learning_rate: {low: 1, high: 0.1}}}", "low must be below high, got 1 and 0.1"),
        ("interval: 1h\nseed: 3\ninterval: 5m", "the key 'interval' stands twice"),
        ("source: {kind: files, symbols: [A], kind: sample}", "the key 'kind' stands twice"),
    ],
)
def test_what_no_run_could_use_is_refused_with_words(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, text), root=tmp_path)


def test_a_yaml_merge_may_repeat_keys(tmp_path: Path) -> None:
    again = load(written(tmp_path, "source: {custom: {options: {<<: {a: 1}, a: 2}}}"))
    assert again.source.custom.options == {"a": 2}


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file .*nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")


def test_hash_depends_on_every_definition_and_not_on_where_state_lives(tmp_path: Path) -> None:
    base = load(root=tmp_path / "a")
    assert base.hash == load(root=tmp_path / "b").hash
    assert base.hash != load(root=tmp_path / "a", seed=8).hash
    assert base.hash == Config.model_validate_json(base.model_dump_json()).hash


def test_state_lies_under_the_given_root_else_under_the_variable_else_where_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(written(tmp_path, "storage: {root: elsewhere, models: served}"))
    monkeypatch.delenv("BARCAST_ROOT", raising=False)
    assert load(path).storage.root == "elsewhere"
    assert load().storage.root == ".barcast"
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path / "state"))
    assert load().open_workspace().base == tmp_path / "state"
    assert load(path).storage.root == str(tmp_path / "state")
    assert load(path).storage.models == "served"
    assert load(path, root=str(tmp_path / "given")).storage.root == str(tmp_path / "given")


def test_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load().seed = 3  # type: ignore[misc]


def test_every_setting_has_a_default_and_a_description() -> None:
    def walk(model: type, where: str) -> list[str]:
        bare = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                bare += walk(inner, f"{where}{name}.")
            elif not field.description or field.is_required():
                bare.append(where + name)
        return bare

    assert walk(Config, "") == []


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "pipelines" / "configs").glob("*.yaml")))
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load(path).workspace

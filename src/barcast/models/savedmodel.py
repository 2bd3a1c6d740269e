"""Export to one SavedModel that needs nothing else, and answers read back from such a folder.

Any Keras model with `answer(window, symbol_id)` goes in. The folder has the signatures `serving_default`,
`explain` (integrated gradients) and `score_examples` (serialized tf.Example), takes RAW features, and holds
normalisation, selection, calibration and the dropout masks. An ensemble's folder also has the signature `members`.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from barcast.errors import ModelError

OUTPUTS = (
    "probabilities",
    "confidence",
    "uncertainty",
    "entropy",
    "expected_return",
    "expected_volatility",
    "position_size",
    "regime",
    "volatility_regime",
    "trend_strength",
    "attention",
    "embedding",
)
EXTRA = "assets.extra"
WARMUP = "tf_serving_warmup_requests"
# An ensemble's further signature: `member_probabilities` (B, M, 3) and `member_weights` (B, M), see `members`.
MEMBERS = "members"
# Points on the straight line between the mean window and the window (Sundararajan et al., 2017).
EXPLAIN_STEPS = 16


def _inputs(network: Any) -> list[Any]:
    """The signatures' inputs: `window` (B, T, F) and `symbol_id` (B,)."""
    import tensorflow as tf

    bars, features = network.architecture.lookback_bars, network.architecture.num_features
    return [
        tf.TensorSpec([None, bars, features], tf.float32, name="window"),
        tf.TensorSpec([None], tf.int32, name="symbol_id"),
    ]


def answering(network: Any) -> Any:
    """`network.answer` compiled, as signature `serving_default`: windows (B, T, F) and ids (B,) to OUTPUTS."""
    import tensorflow as tf

    @tf.function(input_signature=_inputs(network), autograph=False)
    def serving_default(window: Any, symbol_id: Any) -> dict[str, Any]:
        found = network.answer(window, symbol_id)
        return {name: tf.identity(tf.cast(found[name], tf.float32), name=name) for name in OUTPUTS}

    return serving_default


def export(
    network: Any,
    path: Path,
    *,
    mean: np.ndarray,
    extra: dict[str, bytes] | None = None,
    answer: Any = None,
) -> Path:
    """Write `network` as a SavedModel folder, atomically.

    Args:
        network: built model with `architecture` and `answer`.
        path: the folder to create; it must not exist.
        mean: (F,) training mean, the starting point of `explain`.
        extra: files of `assets.extra/` by name.
        answer: what `answering` gave for this network, where it has been compiled already.

    Raises:
        ModelError: the folder exists.
    """
    import tensorflow as tf

    path = Path(path)
    if path.exists():
        raise ModelError(
            f"{path} exists already.", hint="A version directory is written once; choose another."
        )
    bars, features = network.architecture.lookback_bars, network.architecture.num_features
    serving_default = answer or answering(network)
    module = tf.Module()
    # tf.Module follows attributes that are TensorFlow variables; Keras variables are given as such.
    module.kept = [v.value for v in network.variables]
    base = tf.constant(np.broadcast_to(mean.astype(np.float32), (1, bars, features)))
    inputs = _inputs(network)

    @tf.function(input_signature=inputs, autograph=False)
    def explain(window: Any, symbol_id: Any) -> dict[str, Any]:
        chosen = tf.argmax(serving_default(window, symbol_id)["probabilities"], axis=-1)
        batch = tf.shape(window)[0]
        # Midpoints of the steps: the error falls with the square of their number.
        share = (tf.range(EXPLAIN_STEPS, dtype=tf.float32) + 0.5) / EXPLAIN_STEPS
        path_ = base[None] + share[:, None, None, None] * (window - base)[None]
        flat = tf.reshape(path_, [EXPLAIN_STEPS * batch, bars, features])
        ids, target = tf.tile(symbol_id, [EXPLAIN_STEPS]), tf.tile(chosen, [EXPLAIN_STEPS])
        with tf.GradientTape() as tape:
            tape.watch(flat)
            p = tf.gather(network.answer(flat, ids)["probabilities"], target, batch_dims=1)
        slopes = tf.reshape(tape.gradient(p, flat), [EXPLAIN_STEPS, batch, bars, features])
        return {"attributions": tf.reduce_mean(slopes, axis=0) * (window - base), "action": chosen}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")], autograph=False)
    def score_examples(examples: Any) -> dict[str, Any]:
        parsed = tf.io.parse_example(
            examples,
            {
                "window": tf.io.FixedLenFeature([bars, features], tf.float32),
                "symbol_id": tf.io.FixedLenFeature([], tf.int64, default_value=0),
            },
        )
        return dict(serving_default(parsed["window"], tf.cast(parsed["symbol_id"], tf.int32)))

    signatures = {
        "serving_default": serving_default,
        "explain": explain,
        "score_examples": score_examples,
    }
    if hasattr(network, "votes"):
        signatures[MEMBERS] = tf.function(network.votes, input_signature=inputs, autograph=False)
    module.functions = signatures
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(
        module,
        str(temporary),
        signatures=signatures,
        options=tf.saved_model.SaveOptions(save_debug_info=False),
    )
    (temporary / EXTRA).mkdir(exist_ok=True)
    for name, content in (extra or {}).items():
        (temporary / EXTRA / name).write_bytes(content)
    _write_warmup(temporary / EXTRA / WARMUP, np.asarray(base))
    temporary.rename(path)
    return path


def _write_warmup(file: Path, window: np.ndarray) -> None:
    """One request in TensorFlow Serving's warm-up format: the server asks it before a version answers clients."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = "serving_default"
    request.inputs["window"].CopyFrom(tf.make_tensor_proto(window, tf.float32))
    request.inputs["symbol_id"].CopyFrom(tf.make_tensor_proto([0], tf.int32))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(log.SerializeToString())


@lru_cache(maxsize=8)
def _load(path: str, stamp: int) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(path)


def load(path: Path) -> Any:
    """The SavedModel in a folder, read once for each state of its file.

    Raises:
        ModelError: no SavedModel there, or a broken one.
    """
    file = Path(path) / "saved_model.pb"
    if not file.is_file():
        raise ModelError(f"{path} holds no SavedModel.", hint="Give the folder with saved_model.pb in it.")
    try:
        return _load(str(path), file.stat().st_mtime_ns)
    except Exception as error:
        raise ModelError(
            f"The SavedModel in {path} cannot be loaded: {error}.", hint="Export it again."
        ) from error


def predict(
    path: Path, windows: np.ndarray, symbol_ids: np.ndarray, *, signature: str = "serving_default"
) -> dict[str, np.ndarray]:
    """Answers of an exported model in this process.

    Args:
        path: exported folder.
        windows: (B, T, F) float32 raw features in the generation's order.
        symbol_ids: (B,) int32, 0 = unknown.

    Raises:
        ModelError: no model there, a signature it lacks, or windows of another shape.
    """
    import tensorflow as tf

    loaded = load(path)
    if signature not in loaded.signatures:
        raise ModelError(
            f"{path} has no signature {signature!r}.", hint=f"It has {sorted(loaded.signatures)}."
        )
    function = loaded.signatures[signature]
    expected = function.structured_input_signature[1]["window"].shape
    if windows.ndim != 3 or windows.shape[1:] != tuple(expected[1:]):
        raise ModelError(
            f"Windows of shape {windows.shape} came, (B, {expected[1]}, {expected[2]}) are expected.",
            hint="Send the whole FeatureService of this generation, in its order.",
        )
    answered = function(
        window=tf.constant(windows, tf.float32), symbol_id=tf.constant(np.asarray(symbol_ids), tf.int32)
    )
    return {name: value.numpy() for name, value in answered.items()}


def read_extra(path: Path, name: str) -> bytes | None:
    """A file of `assets.extra/`, or None where the folder has none."""
    file = Path(path) / EXTRA / name
    return file.read_bytes() if file.is_file() else None


def members(path: Path) -> tuple[str, ...]:
    """Names of the members of an exported ensemble, in the order of the signature `members`; empty for other models.

    The signature takes the same inputs as `serving_default` and gives each member's own probabilities and the weight of
    its vote for this window (0 for a member that is missing): what a rule that asks for agreement reads.
    """
    return tuple(read_json(path, "serving.json").get("members", ()))


def read_json(path: Path, name: str) -> dict[str, Any]:
    """A JSON file of `assets.extra/`; empty where absent."""
    content = read_extra(path, name)
    return dict(json.loads(content)) if content else {}

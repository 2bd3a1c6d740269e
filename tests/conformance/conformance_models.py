"""SavedModels small enough to write in a test, each with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf


class _Affine(tf.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor, name="factor")

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def predict(self, x: Any) -> dict[str, Any]:
        return {"y": x * self.factor + 1.0}


def save_affine(path: Path, factor: float) -> None:
    """y = factor * x + 1 on (B, 3)."""
    module = _Affine(factor)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.predict})


class _Rich(_Affine):
    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 2), tf.float32, name="a"),
            tf.TensorSpec((None,), tf.int32, name="b"),
        ]
    )
    def two(self, a: Any, b: Any) -> dict[str, Any]:
        return {"sum": tf.reduce_sum(a, axis=1) * self.factor + tf.cast(b, tf.float32), "double_b": b * 2}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")])
    def text(self, text: Any) -> dict[str, Any]:
        return {"upper": tf.strings.upper(text), "raw_bytes": text}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="inputs")])
    def classify(self, inputs: Any) -> dict[str, Any]:
        x = self._parse(inputs)
        scores = tf.concat([x * self.factor, x + 1.0], axis=1)
        return {"classes": tf.tile([["times", "plus"]], [tf.shape(x)[0], 1]), "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="inputs")])
    def regress(self, inputs: Any) -> dict[str, Any]:
        return {"outputs": self._parse(inputs) * self.factor}

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def total(self, x: Any) -> dict[str, Any]:
        return {"total": tf.reduce_sum(x)}

    @tf.function(
        input_signature=[tf.TensorSpec((), tf.float32, name="x"), tf.TensorSpec((), tf.int32, name="steps")]
    )
    def slow(self, x: Any, steps: Any) -> dict[str, Any]:
        def body(i: Any, value: Any) -> Any:
            # Depends on the step's own number, so that nothing can be computed beforehand.
            noise = tf.reduce_sum(tf.sin(tf.cast(i, tf.float32) + tf.zeros((20_000,))))
            return i + 1, value + noise * 0.0

        return {"y": tf.while_loop(lambda i, _: i < steps, body, (0, x), parallel_iterations=1)[1]}

    def _parse(self, inputs: Any) -> Any:
        return tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]


def save_rich(path: Path, factor: float) -> None:
    """Every kind of signature: numbers, several inputs, text, examples, no batch dimension, slow."""
    module = _Rich(factor)
    methods = ("two", "text", "classify", "regress", "total", "slow")
    tf.saved_model.save(
        module,
        str(path),
        signatures={"serving_default": module.predict, **{name: getattr(module, name) for name in methods}},
    )
    _set_methods(path, {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"})


def _set_methods(path: Path, methods: dict[str, str]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name, method in methods.items():
        saved.meta_graphs[0].signature_def[name].method_name = method
    file.write_bytes(saved.SerializeToString())


def write_all(folder: Path) -> Path:
    """The models and the configuration file that the suite expects; the configuration file.

    `rich` versions 1 (factor 2) and 2 (factor 3), `affine` version 7 (folder 00000007, factor 2).
    """
    save_rich(folder / "rich" / "1", factor=2.0)
    save_rich(folder / "rich" / "2", factor=3.0)
    save_affine(folder / "affine" / "00000007", factor=2.0)
    config = folder / "models.config"
    config.write_text(config_text(folder), encoding="utf-8")
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }\n", encoding="utf-8")
    return config


def config_text(folder: Path, *extra: str) -> str:
    """The ModelServerConfig of the suite, with further `config { ... }` entries."""
    return "\n".join(
        [
            "model_config_list {",
            f'  config {{ name: "rich" base_path: "{folder / "rich"}" model_platform: "tensorflow"',
            "    model_version_policy { all {} }",
            '    version_labels { key: "old" value: 1 }',
            '    version_labels { key: "new" value: 2 } }',
            f'  config {{ name: "affine" base_path: "{folder / "affine"}" model_platform: "tensorflow" }}',
            *extra,
            "}",
            "",
        ]
    )


if __name__ == "__main__":
    import sys

    print(write_all(Path(sys.argv[1]).absolute()))

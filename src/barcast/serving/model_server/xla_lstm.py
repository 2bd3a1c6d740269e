"""Replaces TensorFlow's fused LSTM, which XLA does not know, by an equal loop in the compiled twin.

`BlockLSTM` is the quickest LSTM in graph mode, and models are saved with it. In the twin's function copies it becomes a
call of a function that does the same with operations XLA compiles: the input product of all steps at once, then one
small product a step. The result is compared with the original at load (see `servable`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

OPERATION = "BlockLSTM"
# Its inputs, in order, and those that the loop needs.
_INPUTS = ("seq_len_max", "x", "cs_prev", "h_prev", "w", "wci", "wcf", "wco", "b")
_NEEDED = ("x", "cs_prev", "h_prev", "w", "b")


def can_replace(node: Any) -> bool:
    """Whether the loop below is equal to this node: float32, no peepholes, no clipping."""
    clip = node.attr["cell_clip"].f if "cell_clip" in node.attr else 3.0  # 3 is the operation's default
    return bool(
        node.op == OPERATION and node.attr["T"].type == 1 and not node.attr["use_peephole"].b and clip <= 0
    )


@lru_cache(maxsize=8)
def _loop(forget_bias: float) -> tuple[str, tuple[bytes, ...]]:
    """The name of the loop's function, and it and the functions it calls, serialized."""
    import tensorflow as tf

    matrix = tf.TensorSpec((None, None), tf.float32)

    # x (T, B, I), c and h (B, U), w (I + U, 4 U) and b (4 U) in the gate order i, g, f, o.
    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None), tf.float32),
            matrix,
            matrix,
            matrix,
            tf.TensorSpec((None,), tf.float32),
        ],
        autograph=False,
    )
    def barcast_block_lstm(x: Any, c: Any, h: Any, w: Any, b: Any) -> Any:
        shape = tf.shape(x)
        steps, rows, width = shape[0], shape[1], shape[2]
        projected = tf.matmul(tf.reshape(x, (steps * rows, width)), w[:width]) + b
        projected = tf.reshape(projected, (steps, rows, tf.shape(b)[0]))
        recurrent = w[width:]

        def step(t: Any, c: Any, h: Any, states: Any) -> Any:
            i, g, f, o = tf.split(projected[t] + tf.matmul(h, recurrent), 4, axis=1)
            c = tf.sigmoid(f + forget_bias) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            return t + 1, c, h, states.write(t, h)

        states = tf.TensorArray(tf.float32, size=steps)
        return tf.while_loop(lambda t, *_: t < steps, step, (0, c, h, states))[3].stack()

    concrete = barcast_block_lstm.get_concrete_function()
    functions = [*concrete.graph.as_graph_def().library.function, concrete.function_def]
    for function in functions:
        for node in function.node_def:
            node.attr.pop("_lower_using_switch_merge", None)
    name: str = concrete.function_def.signature.name
    return name, tuple(function.SerializeToString() for function in functions)


def replace(function: Any, library: Any) -> bool:
    """Replace every fused LSTM of a FunctionDef; the functions it now calls are added to `library`.

    Returns:
        Whether all were replaced. One whose other outputs than the states `h` are used is left as it is.
    """
    found = [node for node in function.node_def if node.op == OPERATION]
    for node in found:
        others = [f"{node.name}:{output}:" for output in ("i", "cs", "f", "o", "ci", "co")]
        used = [name for other in function.node_def for name in other.input] + list(function.ret.values())
        if not can_replace(node) or any(name.startswith(tuple(others)) for name in used):
            return False
        _replace_one(function, library, node)
    return True


def _replace_one(function: Any, library: Any, node: Any) -> None:
    bias = node.attr["forget_bias"].f if "forget_bias" in node.attr else 1.0
    name, definitions = _loop(bias)
    known = {one.signature.name for one in library.function}
    for definition in definitions:
        made = type(function).FromString(definition)
        if made.signature.name not in known:
            library.function.add().CopyFrom(made)
    data = dict(zip(_INPUTS, node.input, strict=False))
    control = [given for given in node.input if given.startswith("^")]
    old, new = f"{node.name}:h:0", f"{node.name}:output:0"
    del node.input[:]
    node.input.extend([*(data[key] for key in _NEEDED), *control])
    node.op = "PartitionedCall"
    node.attr.clear()
    node.attr["Tin"].list.type.extend([1] * len(_NEEDED))
    node.attr["Tout"].list.type.append(1)
    node.attr["f"].func.name = name
    for other in function.node_def:
        for position, given in enumerate(other.input):
            if given == old:
                other.input[position] = new
    for key, value in function.ret.items():
        if value == old:
            function.ret[key] = new

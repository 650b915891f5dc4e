"""An ONNX graph that computes what the numpy policy does, for runtimes in other languages.

Input `observations`, float32 [N, obs_dim], as the flattened observations on the wire: normalisation
is part of the graph. Output, float32 [N, outputs]: `logits` of a categorical head, `values` of an
ε-greedy one, `means` of a Gaussian one, raw: what is clipped or squashed to the action's bounds.
Then `log_std` [outputs] is a second output; of a head whose deviations depend on the observation,
`log_std` [N, outputs] is. Masks are for the caller to apply. The description is in the metadata.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rl4sys_stream.exchange.package import ModelPackage
from rl4sys_stream.policy.mlp import LOG_STD, bias_name, weight_name
from rl4sys_stream.spaces import flat_dim

__all__ = ["encode_onnx"]

OPSET: Final = 20
"""The first that has Gelu."""
IR_VERSION: Final = 9
"""That of the release with opset 20."""
INPUT: Final = "observations"

_OUTPUTS: Final = {
    "categorical": "logits",
    "epsilon_greedy": "values",
    "gaussian": "means",
    "state_gaussian": "means",
}
_OPERATORS: Final[dict[str, tuple[str, dict[str, float | str]]]] = {
    "tanh": ("Tanh", {}),
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "elu": ("Elu", {"alpha": 1.0}),
    "sigmoid": ("Sigmoid", {}),
    "gelu": ("Gelu", {"approximate": "tanh"}),
}


class _Graph:
    """Nodes and constants, as they come up."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """A tensor under that name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(
        self, operator: str, inputs: Sequence[str], output: str, **attributes: float | str
    ) -> str:
        """What an operator makes of `inputs`, under the name `output`."""
        made = helper.make_node(operator, list(inputs), [output])
        made.attribute.extend(helper.make_attribute(name, of) for name, of in attributes.items())
        self.nodes.append(made)
        return output


def encode_onnx(package: ModelPackage) -> bytes:
    """The graph as bytes, checked by ONNX's own checker.

    Raises:
        onnx.checker.ValidationError: Never for a model that `build_policy` takes.
    """
    graph, output = _Graph(), _OUTPUTS[package.extras.head]
    split, per_item = package.extras.head == "state_gaussian", package.spec.network.per_item
    inputs = _reshaped(graph, INPUT, "items", package.spec.input_dim) if per_item else INPUT
    last = _layers(
        graph, package, _normalized(graph, package, inputs), "" if split or per_item else output
    )
    width = package.spec.actions.choices or package.spec.actions.dim
    rows = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])]
    if per_item:
        _reshaped(graph, last, output, width)
    elif split:
        sizes = graph.constant("halves", np.array([width, width], np.int64))
        graph.nodes.append(helper.make_node("Split", [last, sizes], [output, LOG_STD], axis=1))
        rows.append(helper.make_tensor_value_info(LOG_STD, TensorProto.FLOAT, ["N", width]))
    elif package.extras.head == "gaussian":
        stored = graph.constant("log_std.value", package.weights.tensors()[LOG_STD])
        graph.node("Identity", [stored], LOG_STD)
        rows.append(helper.make_tensor_value_info(LOG_STD, TensorProto.FLOAT, [width]))
    made = helper.make_graph(
        graph.nodes,
        "policy",
        [
            helper.make_tensor_value_info(
                INPUT, TensorProto.FLOAT, ["N", flat_dim(package.spec.observation_space)]
            )
        ],
        rows,
        graph.constants,
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="rl4sys-stream"
    )
    model.ir_version = IR_VERSION
    helper.set_model_props(model, {"rl4sys_stream": package.describe().decode()})
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _reshaped(graph: _Graph, inputs: str, output: str, width: int) -> str:
    """Rows of `width` from what `inputs` holds: items from observations, and back."""
    shape = graph.constant(f"{output}.shape", np.array([-1, width], np.int64))
    return graph.node("Reshape", [inputs, shape], output)


def _normalized(graph: _Graph, package: ModelPackage, inputs: str) -> str:
    normalization = package.extras.normalization
    if normalization is None:
        return inputs
    clip = np.float32(normalization.clip)
    mean = graph.constant("normalization.mean", normalization.mean)
    scale = graph.constant("normalization.scale", normalization.scale)
    low, high = graph.constant("low", np.array(-clip)), graph.constant("high", np.array(clip))
    shifted = graph.node("Sub", [inputs, mean], "shifted")
    scaled = graph.node("Mul", [shifted, scale], "scaled")
    return graph.node("Clip", [scaled, low, high], "normalized")


def _layers(graph: _Graph, package: ModelPackage, inputs: str, output: str) -> str:
    """The net from `inputs` on; its last sums are named `output`, if that is not ""."""
    tensors, network = package.weights.tensors(), package.spec.network
    count = len(network.hidden_sizes) + 1
    for layer in range(count):
        weight = graph.constant(weight_name(layer), tensors[weight_name(layer)])
        bias = graph.constant(bias_name(layer), tensors[bias_name(layer)])
        last = layer == count - 1
        name = output if last and output else f"sums.{layer}"
        inputs = graph.node("Gemm", [inputs, weight, bias], name)
        if not last:
            inputs = _activated(graph, network.activation, inputs, f"hidden.{layer}")
    return inputs


def _activated(graph: _Graph, activation: str, inputs: str, output: str) -> str:
    if activation == "silu":
        gate = graph.node("Sigmoid", [inputs], f"{output}.gate")
        return graph.node("Mul", [inputs, gate], output)
    operator, attributes = _OPERATORS[activation]
    return graph.node(operator, [inputs], output, **attributes)

"""Files for other programs: ONNX Runtime and PyTorch compute what the numpy policy does."""

import io

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from rl4sys_stream.errors import DigestError, WireFormatError
from rl4sys_stream.exchange.onnx_file import encode_onnx
from rl4sys_stream.exchange.package import ModelPackage
from rl4sys_stream.exchange.safetensors_file import encode_safetensors, read_safetensors
from rl4sys_stream.exchange.torch_file import encode_torch
from rl4sys_stream.policy.mlp import LOG_STD
from rl4sys_stream.policy.policy import build_policy
from rl4sys_stream.spaces import Box, MultiDiscrete
from tests.unit.exchange.packages import ITEMS, OBS_DIM, package, per_item_package, same

BOX = Box((2,), low=-1.0, high=1.0)
ACTIVATIONS = ["tanh", "relu", "leaky_relu", "elu", "silu", "gelu", "sigmoid"]


def observations() -> NDArray[np.float32]:
    """Some that the clip of the normalisation cuts off, and some that it does not."""
    return (3 * np.random.default_rng(1).standard_normal((64, OBS_DIM))).astype(np.float32)


def numpy_outputs(model: ModelPackage) -> NDArray[np.float32]:
    """What agents compute."""
    policy = build_policy(model.spec, model.weights, model.extras, 1, "t")
    return policy.outputs(observations())


def run_onnx(model: ModelPackage) -> dict[str, NDArray[np.float32]]:
    """What ONNX Runtime computes, by the names of the outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        encode_onnx(model), options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {"observations": observations()}), strict=True))


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_onnx_runtime_computes_the_logits_of_the_policy(activation, normalized):
    """Whatever the activation; normalisation is in the graph."""
    model = package(activation=activation, normalized=normalized)
    found = run_onnx(model)
    assert list(found) == ["logits"]
    np.testing.assert_allclose(found["logits"], numpy_outputs(model), rtol=1e-5, atol=2e-6)


def test_onnx_runtime_computes_values_and_the_logits_of_several_choices():
    """An ε-greedy head, and one with factors."""
    for name, model in (
        ("values", package(algorithm="DQN", hidden=(16,))),
        ("logits", package(action_space=MultiDiscrete((3, 2)), hidden=())),
    ):
        np.testing.assert_allclose(run_onnx(model)[name], numpy_outputs(model), atol=2e-6)


@pytest.mark.parametrize("normalized", [False, True])
def test_onnx_runtime_computes_the_logits_of_a_network_per_item(normalized):
    """From whole observations to a logit for each item, as on the wire."""
    model = per_item_package(normalized=normalized)
    rows = np.random.default_rng(2).standard_normal((16, ITEMS * OBS_DIM)).astype(np.float32)
    policy = build_policy(model.spec, model.weights, model.extras, 1, "t")
    session = onnxruntime.InferenceSession(encode_onnx(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"observations": rows})
    np.testing.assert_allclose(logits, policy.outputs(rows), atol=2e-6)


def test_onnx_runtime_computes_the_means_of_a_box():
    """With the deviations beside them, learned once or by the observation."""
    model = package(action_space=BOX)
    found = run_onnx(model)
    np.testing.assert_allclose(found["means"], numpy_outputs(model), atol=2e-6)
    assert found["log_std"].tobytes() == model.weights.tensors()[LOG_STD].tobytes()
    model = package(action_space=BOX, algorithm="SAC")
    found, whole = run_onnx(model), numpy_outputs(model)
    np.testing.assert_allclose(found["means"], whole[:, :2], atol=2e-6)
    np.testing.assert_allclose(found["log_std"], whole[:, 2:], atol=2e-6)


@pytest.mark.parametrize("space", [None, BOX], ids=["discrete", "box"])
def test_a_plain_torch_network_takes_the_state_dict(space):
    """Read with `weights_only`, into a Sequential of Linears."""
    model = package(action_space=space, activation="relu")
    state = torch.load(io.BytesIO(encode_torch(model)), weights_only=True)  # noqa: TID251
    layers = {name.removeprefix("pi."): t for name, t in state.items() if name.startswith("pi.")}
    net = nn.Sequential(
        nn.Linear(OBS_DIM, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3 - bool(space))
    )
    net.load_state_dict(layers)
    x = torch.tensor(observations()) - state["normalization.mean"]
    clip = float(state["normalization.clip"])
    x = (x * state["normalization.scale"]).clamp(-clip, clip)
    with torch.no_grad():
        np.testing.assert_allclose(net(x).numpy(), numpy_outputs(model), atol=2e-6)
    assert (LOG_STD in state) == (space is not None)


@pytest.mark.parametrize("space", [None, BOX], ids=["discrete", "box"])
def test_a_safetensors_file_is_read_as_it_was_written(space, tmp_path):
    """Bit for bit, whatever the order in which the format lays its tensors out."""
    model, path = package(action_space=space), tmp_path / "model.safetensors"
    path.write_bytes(encode_safetensors(model))
    assert same(read_safetensors(path), model)


def test_a_safetensors_file_that_is_none_or_somebody_elses_is_refused(tmp_path):
    """Or one that was changed."""
    path, data = tmp_path / "model.safetensors", encode_safetensors(package())
    for content, why in (
        (b"hello", "is no safetensors file"),
        (data[:-5], "is no safetensors file"),
        (data.replace(b"rl4sys_stream", b"somebody_else"), "was not written by"),
    ):
        path.write_bytes(content)
        with pytest.raises(WireFormatError, match=why):
            read_safetensors(path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DigestError):
        read_safetensors(path)

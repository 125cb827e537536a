"""The encoder as ONNX in onnxruntime: the numbers of PyTorch, for any number of scenes."""

import numpy as np
import pytest

from cjepa_jax.errors import ConfigError
from cjepa_jax.export import bundle, onnx
from tests.export import pairs


@pytest.mark.slow
@pytest.mark.needs("onnxruntime")
@pytest.mark.parametrize("case", [{}, {"frames": 4, "encoder": {"positions": "rope"}}], ids=["image", "clip"])
def test_onnxruntime_gives_the_same_numbers(case, tmp_path, capfd):
    import onnxruntime
    import torch

    model = pairs.model(**case)
    torch_model = pairs.in_torch(model, tmp_path)
    file = onnx.write(tmp_path, bundle.scene_shape(model))
    assert not capfd.readouterr().out and not list(tmp_path.glob("*.data"))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, given.name) == ("video", "tokens")
    assert taken.shape == ["batch", *bundle.scene_shape(model)] and taken.type == given.type == "tensor(float)"
    for batch in (1, 5):
        video = pairs.scenes(model, batch)[0].reshape(batch, *bundle.scene_shape(model)).astype(np.float32)
        (tokens,) = session.run(None, {"video": video})
        with torch.no_grad():
            assert pairs.apart(tokens, torch_model.encode(torch.tensor(video))) < 1e-5


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None if name == "onnx" else 1)
    with pytest.raises(ConfigError, match=r"--onnx: needs onnx: pip install 'cjepa_jax\[onnx\]'"):
        onnx.require()

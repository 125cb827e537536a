"""An objective made on the fly, in a separate module: it loads, exports, starts others and is evaluated at once."""

import contextlib
import functools

import jax
import numpy as np
import pytest

import cjepa_jax
from cjepa_jax.errors import CheckpointError
from cjepa_jax.export import __main__ as export
from cjepa_jax.loading import init_from, pretrained
from cjepa_jax.loading.model import Restored
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.runtime.checkpoint import Checkpoints
from tests import run_folders

NAME = "own_objective"
CODE = '''
import dataclasses
from collections.abc import Mapping
import jax, jax.numpy as jnp
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.objectives.jepa import Jepa

@dataclasses.dataclass(frozen=True)
class Grey:
    """Predicts a scene's mean brightness."""
    encoder: Mapping
    steps: int
    dtype: str = "float32"
    scale: float = 1.0

    max_removed = 0
    exports = ("encoder",)

    @property
    def _encoder(self):
        return Encoder(**self.encoder, dtype=jnp.dtype(self.dtype))
    @property
    def patch(self):
        return self._encoder.patch
    @property
    def tubelet(self):
        return self._encoder.tubelet
    def init(self, key, batch):
        encoder = self._encoder.init(key, batch.video)["params"]
        return {"encoder": encoder, "predictor": jnp.zeros(self._encoder.width)}, {}, {}
    def loss(self, params, target, extra, batch, key, step):
        error = self.encode(params, batch.video).mean(1) @ params["predictor"] - batch.video.mean((1, 2, 3, 4)) / 255
        total = self.scale * jnp.square(error).mean()
        return total, ({"loss": total}, extra)
    def next_target(self, params, target, step):
        return target
    def encode(self, params, video):
        return self._encoder.apply({"params": params["encoder"]}, video)

class Silent(Grey):
    exports = ()

@dataclasses.dataclass(frozen=True)
class Double(Jepa):
    """Jepa with another text of its method."""
'''


def configured(name="Grey"):
    c = run_folders.config()
    with c.unlocked():
        if name != "Double":
            c.objective = {"encoder": c.objective.encoder}
        c.objective.type = f"{NAME}:{name}"
    return c


@functools.cache
def state(name):
    """Of the one checkpoint of an objective's run."""
    return run_folders.state_of(configured(name), 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder on the path, with the module and a run of each of its objectives."""
    root = tmp_path_factory.mktemp("own")
    (root / f"{NAME}.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        for name in ("Grey", "Double", "Silent"):
            run_folders.write(root / name, configured(name), steps=())
        for name in ("Grey", "Double"):
            with contextlib.closing(Checkpoints(root / name / "checkpoints", keep=1)) as checkpoints:
                checkpoints.save(2, state(name))
        yield root


def video(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, 2, 32, 32, 3), np.uint8)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_only_with_trust(place):
    for call in (cjepa_jax.load, pretrained.load_weights, lambda path: Restored.of(run_folders.config(), str(path))):
        with pytest.raises(CheckpointError, match=f"objective.type = '{NAME}:Grey': .* --trust={NAME}"):
            call(place / "Grey")
    with pytest.raises(CheckpointError, match=rf"objective.type = '{NAME}:Silent': exports = \(\): must be 'encoder'"):
        cjepa_jax.load(place / "Silent", trust=NAME)


def test_it_is_loaded_exported_and_loaded_again_without_its_code(place, tmp_path):
    found = cjepa_jax.load(place / "Grey", trust=NAME)
    tokens = jax.jit(Encoder(**found.pretrained.encoder).apply)({"params": state("Grey").params["encoder"]}, video())
    np.testing.assert_allclose(found.encode(video()), tokens, atol=1e-5)
    assert found.info["parts"] == ("encoder",)
    assert export.main([f"--checkpoint={place / 'Grey'}", f"--out={tmp_path / 'out'}", f"--trust={NAME}"]) == 0
    assert f"trained as `{NAME}:Grey`" in (tmp_path / "out" / "README.md").read_text()
    np.testing.assert_array_equal(cjepa_jax.load(tmp_path / "out").encode(video()), found.encode(video()))


def test_its_predictor_comes_with_it(place):
    found = pretrained.load_weights(place / "Double", trust=NAME)
    equal(found.params["predictor"], state("Double").params["predictor"])
    assert set(found.params) == {"encoder", "target", "predictor"} and found.predictor["width"] == 16


def test_a_run_of_jepa_starts_from_it(place, tmp_path):
    c = run_folders.config(init_from=str(place / "Grey"))
    weights, lines = init_from.prepare(c, tmp_path / "new", trust=(NAME,))
    assert lines[-1] == "predictor: fresh, because the weights have none"
    started = init_from.start(c, state("Double"), weights)  # which has the shapes of Jepa's
    equal(started.params["encoder"], state("Grey").params["encoder"])
    equal(started.params["predictor"], state("Double").params["predictor"])


def test_it_starts_from_others(place, tmp_path):
    own = configured("Grey")
    with own.unlocked():
        own.init_from = str(place / "Double")
    weights, lines = init_from.prepare(own, tmp_path / "own", trust=(NAME,))
    assert not any("predictor: " in each for each in lines)
    started = init_from.start(own, state("Grey"), weights)
    equal(started.params["encoder"], state("Double").params["encoder"])
    equal(started.params["predictor"], state("Grey").params["predictor"])  # of its own kind, and not exported


def test_keys_that_no_encoder_has_are_refused(place, tmp_path):
    c = configured()
    with c.unlocked():
        c.objective.encoder.hands = 2
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(c.to_json())
    with pytest.raises(CheckpointError, match="objective.encoder.hands: unknown key"):
        pretrained.load_weights(tmp_path, trust=NAME)


def test_it_is_evaluated(place):
    own = configured()
    model = Restored.of(own, str(place / "Grey"))
    tokens = jax.jit(Encoder(**own.objective.encoder).apply)({"params": state("Grey").params["encoder"]}, video())
    np.testing.assert_allclose(model.trained(2).encode(video()), tokens, atol=1e-5)
    assert model.about["step"] == 2

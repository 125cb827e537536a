"""Slots of whole videos: frame by frame they are those of the networks, and files hold them as they came."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from cjepa_jax.configuration import build
from cjepa_jax.configuration import check as config_lib
from cjepa_jax.data.formats import video
from cjepa_jax.data.slot_files import writing
from cjepa_jax.data.sources.slot_files import SlotFiles
from cjepa_jax.errors import CheckpointError, ConfigError, DataError
from cjepa_jax.extract import __main__ as command
from cjepa_jax.extract import encoders
from cjepa_jax.models.encoder import Encoder
from cjepa_jax.models.videosaur import VideoSaur
from cjepa_jax.weights import canonical
from cjepa_jax.weights import videosaur as saur_weights
from cjepa_jax.weights.slot_encoders import EncoderWeights
from configs.slots import videosaur
from tests.data import clips
from tests.models.test_slot_encoders import savi
from tests.weights import test_dinov2

FLAGS = dict(size=0, seed=3, noise=False, backbone="", trust="")
WIDTH = 96  # a width whose heads are known


def frames(count, side):
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def image_encoder(folder):
    """A random DINOv2 of 2 blocks and patches of 8, as our encoder, and in a folder of transformers' names."""
    options = {"variant": "96x2x3x32/8", "tubelet": 1, "positions": "table", "position_grid": (1, 4, 4)}
    network = Encoder(**options, class_token=True, layer_scale=1.0)
    params = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 1, 32, 32, 3), np.float32))["params"]
    noise = np.random.default_rng(5)
    params = jax.tree.map(lambda x: np.asarray(x + 0.2 * noise.standard_normal(x.shape), np.float32), params)
    state = {}
    for name, array in canonical.to_canonical(params, 8, 1).items():
        state |= theirs(name, array)
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    config = {"model_type": "dinov2", "num_attention_heads": 3, "hidden_size": WIDTH}
    (folder / "config.json").write_text(json.dumps(config))
    return network, params, state


def theirs(name, array):
    """An array under transformers' older names. The class token's position is 0."""
    if name == "class_token":
        return {"embeddings.cls_token": array[None, None]}
    if name == "pos_embed":
        return {"embeddings.position_embeddings": np.concatenate([np.zeros((1, 1, WIDTH), np.float32), array], 1)}
    if ".attn.qkv." in name:
        layer, leaf = name.split(".attn.qkv.")
        parts = zip(("query", "key", "value"), np.split(array, 3), strict=True)
        return {
            f"encoder.layer.{layer.split('.')[1]}.attention.attention.{part}.{leaf}": np.ascontiguousarray(third)
            for part, third in parts
        }
    for ours, published in (
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("blocks.", "encoder.layer."),
        (".attn.proj.", ".attention.output.dense."),
        (".ls1.gamma", ".layer_scale1.lambda1"),
        (".ls2.gamma", ".layer_scale2.lambda1"),
    ):
        name = name.replace(ours, published)
    return {f"layernorm.{name[5:]}" if name.startswith("norm.") else name: np.ascontiguousarray(array)}


def saur(fixed):
    """A random slot encoder of 3 x 3 places, and its public state dict without an image encoder."""
    sizes = dict(width=16, fixed=fixed, embed=20, hidden=12 if fixed else 0, blocks=0 if fixed else 1, units=(24,))
    sizes |= dict(similarity=not fixed, decoder="mlp" if fixed else "mixer")
    sizes |= dict(slots=3) if fixed else {}
    model = VideoSaur(**sizes)
    shown = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 9, WIDTH)), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(1), shown)["params"]
    return model, params, saur_weights.state_dict(EncoderWeights(params, sizes, {}))


def test_savis_slots_frame_by_frame_are_those_of_a_clip(tmp_path):
    _, state, weights, model, _ = savi()
    save_file({name: np.asarray(array, np.float32) for name, array in state.items()}, tmp_path / "savi.safetensors")
    found, config = encoders.of(str(tmp_path / "savi.safetensors"), **FLAGS)
    clip = frames(5, 16)
    wanted = jax.jit(model.apply)({"params": weights.params}, clip[None].astype(np.float32) / 127.5 - 1)["slots"][0]
    assert config is None and found.size == 16
    np.testing.assert_allclose(found.encode(iter(clip), 0), wanted, atol=1e-5)
    drawn, _ = encoders.of(str(tmp_path / "savi.safetensors"), **FLAGS | {"noise": True})
    one, again, other = (drawn.encode(clip, number) for number in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - wanted).max() > 1e-3 and np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("fixed", [True, False], ids=["slotcontrast", "videosaur"])
@pytest.mark.parametrize("inside", [True, False])
def test_videosaurs_slots_are_those_of_its_features_from_either_image_encoder(tmp_path, fixed, inside):
    network, weights, backbone = image_encoder(tmp_path / "dino")
    model, params, state = saur(fixed)
    if inside:
        state |= {f"{saur_weights.BACKBONE}{name}": array for name, array in backbone.items()}
    save_file(state, tmp_path / "saur.safetensors")
    given = FLAGS | {"backbone": "" if inside else str(tmp_path / "dino")}
    found, _ = encoders.of(str(tmp_path / "saur.safetensors"), **given)
    clip = frames(11, 24)  # more than are encoded together
    features = jax.jit(network.apply)({"params": weights}, clip[:, None].astype(np.float32))[None]
    model = dataclasses.replace(model, slots=model.slots if fixed else 7)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(3), 2), (1, model.slots, 16))
    wanted = jax.jit(model.apply)({"params": params}, features, None if fixed else noise)["slots"][0]
    assert found.size == 24
    np.testing.assert_allclose(found.encode(clip, 2), wanted, atol=2e-5)


@pytest.mark.parametrize("kind", ["savi", "slotcontrast", "videosaur"])
def test_several_videos_at_once_frame_by_frame_have_the_slots_of_each(tmp_path, kind):
    """With the noise of the seed and of each video's number."""
    image_encoder(tmp_path / "dino")
    state = savi()[1] if kind == "savi" else saur(kind == "slotcontrast")[2]
    save_file({name: np.asarray(array, np.float32) for name, array in state.items()}, tmp_path / "x.safetensors")
    flags = {"noise": True} if kind == "savi" else {"backbone": str(tmp_path / "dino")}
    found, _ = encoders.of(str(tmp_path / "x.safetensors"), **FLAGS | flags)
    clips, numbers = [frames(count, found.size) for count in (5, 6)], np.array([4, 2])
    wanted = [found.encode(clip, int(number)) for clip, number in zip(clips, numbers, strict=True)]
    state, step, first = found.recurrent.first(FLAGS["seed"], numbers), found.recurrent.step, None
    for t in range(5):
        slots, state = step(np.stack([clip[t] for clip in clips]), state)
        first = slots if first is None else first
        np.testing.assert_allclose(slots, np.stack([own[t] for own in wanted]), atol=5e-6)
    beside, drawn = found.recurrent.beside(slots, state), kind == "savi"
    again, _ = step(np.stack([clip[0] for clip in clips]), beside)
    assert np.abs(again - first).max() > 1e-3
    other = found.recurrent.beside(slots, found.recurrent.first(FLAGS["seed"] + 1, numbers))
    assert (np.abs(step(np.stack([clip[0] for clip in clips]), other)[0] - again).max() > 1e-3) == drawn


def test_a_folder_of_dinov2_gives_its_features(tmp_path):
    network, weights, _ = image_encoder(tmp_path / "dino")
    found, _ = encoders.of(str(tmp_path / "dino"), **FLAGS | {"size": 40})
    clip = frames(9, 40)
    wanted = jax.jit(network.apply)({"params": weights}, clip[:, None].astype(np.float32))
    np.testing.assert_allclose(found.encode(clip, 0), wanted, atol=2e-5)
    assert found.encode(clip, 0).shape == (9, 25, WIDTH)


def test_the_command_writes_what_slot_files_read(tmp_path, capsys):
    _, state, *_ = savi()
    save_file({name: np.asarray(array, np.float32) for name, array in state.items()}, tmp_path / "savi.safetensors")
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            clips.write(tmp_path / "videos" / split / f"{i}.avi", frames(6 + i, 40))
    given = [f"--checkpoint={tmp_path / 'savi.safetensors'}", f"--videos={tmp_path / 'videos'}"]
    assert command.main([*given, f"--out={tmp_path / 'out'}"]) == 0
    assert "split train, 2 videos" in capsys.readouterr().out
    source = SlotFiles("train", str(tmp_path / "out"), frames=3)
    assert (source.slots, source.width, len(source)) == (3, 8, 4 + 5)
    found, _ = encoders.of(str(tmp_path / "savi.safetensors"), **FLAGS)
    every = found.encode(video.every(tmp_path / "videos" / "train" / "1.avi", 16, "test"), 1)
    np.testing.assert_array_equal(source[5]["video"][:, 0], every[1:4])
    assert len(SlotFiles("eval", str(tmp_path / "out"), frames=6)) == 1
    assert command.main([*given, f"--out={tmp_path / 'out'}"]) == 0
    assert "done already, with the same weights, flags and videos" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="holds slots already, made with --seed = 0, not 1"):
        command.main([*given, f"--out={tmp_path / 'out'}", "--seed=1"])


def test_what_is_refused_in_one_line(tmp_path):
    network, _, backbone = image_encoder(tmp_path / "dino")
    state = saur(True)[2]
    save_file(state, tmp_path / "saur.safetensors")
    save_file(test_dinov2.arrays(), tmp_path / "other.safetensors")
    wide = {name: array for name, array in saur(True)[2].items()}
    wide["decoder.module.pos_emb"] = np.zeros((1, 1, 10, 16), np.float32)
    save_file(wide, tmp_path / "wide.safetensors")
    (tmp_path / "empty").mkdir()
    for name, flags, error, message in (
        ("saur.safetensors", {}, ConfigError, "--backbone is missing: .* does not hold its image encoder"),
        ("saur.safetensors", {"noise": True}, ConfigError, "--noise: for SAVi alone"),
        ("saur.safetensors", {"size": 32}, ConfigError, "--size=32: for DINOv2 alone"),
        ("dino", {"size": 30}, ConfigError, "--size=30: must be a multiple of the patches' 8 pixels"),
        ("other.safetensors", {}, CheckpointError, "is none of StoSAVi, VideoSAUR and SlotContrast"),
        ("wide.safetensors", {"backbone": str(tmp_path / "dino")}, CheckpointError, "10 places of features of 96"),
        ("nothing", {}, ConfigError, "there is no such file or folder"),
    ):
        with pytest.raises(error, match=message) as caught:
            encoders.of(str(tmp_path / name), **FLAGS | flags)
        assert "\n" not in str(caught.value)
    dino = [f"--checkpoint={tmp_path / 'dino'}", f"--out={tmp_path / 'out'}"]
    for more, message in (
        ([], "--videos is missing: only a run has data"),
        ([f"--videos={tmp_path / 'empty'}"], "holds no video"),
        ([f"--videos={tmp_path / 'none'}"], "there is no such folder"),
        (["--seed=-1"], "--seed=-1: must be at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            command.main([*dino, *more])
    assert not (tmp_path / "out" / "videos.json").exists()


@pytest.mark.parametrize("given", [True, False])
def test_slots_that_were_trained_on_features_before_the_last_norm_are_refused(tmp_path, given):
    _, _, backbone = image_encoder(tmp_path / "dino")
    timm = {f"{saur_weights.BACKBONE}model.{name}": np.zeros(3, np.float32) for name in ("cls_token", "norm.weight")}
    save_file(saur(False)[2] | timm, tmp_path / "saur.safetensors")
    flags = FLAGS | {"backbone": str(tmp_path / "dino") if given else ""}
    with pytest.raises(CheckpointError, match="backbone.model.cls_token' is not a name of .*before the last norm"):
        encoders.of(str(tmp_path / "saur.safetensors"), **flags)
    newer = {f"{saur_weights.BACKBONE}{name}": array for name, array in backbone.items()}
    save_file(saur(False)[2] | newer, tmp_path / "saur.safetensors")
    assert encoders.of(str(tmp_path / "saur.safetensors"), **flags)[0].size == 24


def test_a_run_of_features_cannot_encode_videos(tmp_path):
    c = videosaur.get_config().unlock()
    c.data.source = "cjepa_jax.data.sources.feature_files:FeatureFiles"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(config_lib.resolve(c)))
    with pytest.raises(ConfigError, match="FeatureFiles': was trained on features, and has no image encoder") as error:
        encoders.of(str(tmp_path), **FLAGS)
    assert "\n" not in str(error.value)


def test_no_more_scenes_are_read_than_are_asked_for(monkeypatch):
    c, read = videosaur.get_config().unlock(), []
    c.data.count = c.data.eval_count = 4
    c.data.frames, c.data.size = 2, 32
    world = build.locate(c.data.source)
    scene = world.__getitem__
    monkeypatch.setattr(world, "__getitem__", lambda self, i: read.append((self.split, i)) or scene(self, i))
    for most, count in ((3, 3), (None, 4), (9, 4)):
        read.clear()
        found = command.of_scenes(command.sources_of(c, 0), 32, most)
        assert not read and [one[:3] for one in found] == [
            (split, str(i), i) for split in ("train", "eval") for i in range(count)
        ]
        assert next(found[count + 1].frames()).shape == (32, 32, 3) and read == [("eval", 1)]


def test_folders_of_videos_are_splits_and_others_are_passed_over(tmp_path):
    found = lambda most=None: [video[:2] for video in command.of_files(tmp_path, 16, most)]  # noqa: E731
    for name in (".cache/x.avi", "0.avi", "1.avi", "notes/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert found() == [("train", "0.avi"), ("train", "1.avi")] and found(1) == [("train", "0.avi")]
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "2.avi").touch()
    with pytest.raises(ConfigError, match="holds the video 0.avi beside folders of videos, val: must hold one of the"):
        found()
    (tmp_path / "0.avi").unlink()
    (tmp_path / "1.avi").unlink()
    assert found() == [("val", "2.avi")]


def test_slots_that_do_not_fit_leave_no_folder_that_can_be_read(tmp_path):
    cases = (
        ([("train", "a", (2, 3, 4)), ("train", "b", (2, 5, 4))], r"b: has \[5, 4\] slots and width, others \[3, 4\]"),
        ([("train", "a", (2, 3, 4)), ("train", "a", (2, 3, 4))], "a: split train has a video of this name already"),
        ([("train", "a", (0, 3, 4))], "a: has no frame"),
        ([], "there is no video"),
    )
    for i, (given, message) in enumerate(cases):
        with pytest.raises(DataError, match=message), writing(tmp_path / str(i)) as write:
            for split, name, shape in given:
                write(split, name, np.zeros(shape, np.float32))
        assert [file.name for file in (tmp_path / str(i)).iterdir()] == [".lock"]

"""Files in the exact layouts that the original projects published, against plain PyTorch under those names."""

import jax
import numpy as np
import pytest

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import files
from cjepa_jax.weights.read import read
from tests.weights.parity import CLOSE, encode, normal, pixels, predict

pytestmark = pytest.mark.needs("torch")
torch = pytest.importorskip("torch")
from tests.weights import reference  # noqa: E402
from tests.weights.reference import Predictor, Rotary, Vit, shaken  # noqa: E402

WIDTH, HEADS = 48, 2
SIZE = {"width": WIDTH, "depth": 2, "heads": HEADS, "hidden": 72, "patch": 8}
EVEN, ODD = np.arange(0, 16, 2), np.arange(1, 16, 2)


def prefixed(module, prefix):
    return {prefix + name: value for name, value in module.state_dict().items()}


def ijepa(path):
    """{encoder, predictor, target_encoder, opt, scaler, epoch, ...}, names module.*: encoder, target, predictor."""
    table = reference.table_2d(WIDTH, 4)
    encoder, target = (shaken(Vit(**SIZE, positions=table), seed) for seed in (0, 1))
    predictor = shaken(Predictor(WIDTH, 24, 2, HEADS, reference.table_2d(24, 4)), 2)
    parts = {"encoder": encoder, "predictor": predictor, "target_encoder": target}
    checkpoint = {name: prefixed(part, "module.") for name, part in parts.items()}
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(24, WIDTH), "exp_avg_sq": torch.zeros(24, WIDTH)}
    optimiser = {"state": {0: moments}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]}
    rest = {"opt": optimiser, "scaler": None, "epoch": 300, "loss": 0.2, "batch_size": 8, "lr": 1e-3}
    torch.save(checkpoint | rest, path)
    return encoder, target, predictor


def vjepa(path, version):
    """Names module.backbone.*, a convolution over frames, mask_tokens.i. Version 2 has positions it does not use."""
    many = 2 if version == 1 else 10
    width, heads = (24, HEADS) if version == 1 else (96, 12)
    table, narrow = reference.table_3d(WIDTH, 4, 8), reference.table_3d(width, 4, 8)
    encoder, target = (shaken(Vit(**SIZE, positions=table, tubelet=2), seed) for seed in (0, 1))
    predictor = shaken(Predictor(WIDTH, width, 2, heads, narrow, many), 2)
    parts = {"encoder": encoder, "predictor": predictor, "target_encoder": target}
    torch.save({name: prefixed(part, "module.backbone.") for name, part in parts.items()} | {"epoch": 1}, path)
    return encoder, target, predictor


def test_the_reference_has_the_published_positions():
    row0_col1 = [0.841471, 0.01, 0.540302, 0.99995, 0, 0, 1, 1]
    np.testing.assert_allclose(reference.table_2d(8, 3)[1], row0_col1, atol=1e-6)
    np.testing.assert_allclose(reference.table_3d(1024, 14, 8).sum(), 754948.1366, atol=1e-3)
    np.testing.assert_allclose(reference.table_3d(384, 14, 8).sum(), 282557.4217, atol=1e-3)


@torch.no_grad()
def test_the_reference_has_the_published_rotations():
    x, place = torch.arange(1.0, 7)[None, None, None], torch.tensor([3])
    tile = [-1.272233, 2.119439, 2.974084, -3.53661, 4.118815, 6.032191]
    interleaved = [-1.272233, -1.838865, 2.41577, 4.377677, 4.961116, 6.032191]
    np.testing.assert_allclose(reference.turned(x, place, True).flatten(), tile, atol=1e-5)
    np.testing.assert_allclose(reference.turned(x, place, False).flatten(), interleaved, atol=1e-5)


def test_ijepas_checkpoint(tmp_path):
    encoder, target, predictor = ijepa(tmp_path / "in1k.pth.tar")
    found = read(tmp_path / "in1k.pth.tar", heads=HEADS)
    assert (found.layout, found.licence) == ("ijepa", "CC-BY-NC-4.0")
    assert (found.about["encoder"], found.about["target"]) == ("encoder", "target_encoder")
    assert found.encoder["position_grid"] == found.predictor["position_grid"] == (1, 4, 4)
    assert found.input == {"size": 32, "frames": 1, "anchor": 0, "names_objects": False}
    video = pixels(2, 1, 32, 32, 3)
    with torch.no_grad():
        x = normal(video, found)[:, 0]
        tokens = encoder(x)
        theirs = predictor(tokens[:, EVEN], torch.tensor(EVEN), torch.tensor(ODD))
        np.testing.assert_allclose(encode(found, video), tokens, **CLOSE)
        np.testing.assert_allclose(encode(found, video, which="target"), target(x), **CLOSE)
    np.testing.assert_allclose(predict(found, tokens.numpy(), EVEN, ODD, (1, 4, 4)), theirs, **CLOSE)


def test_one_encoder_of_several_is_named(tmp_path):
    ijepa(tmp_path / "in1k.pth.tar")
    both = read(tmp_path / "in1k.pth.tar", heads=HEADS)
    only = read(tmp_path / "in1k.pth.tar", "target_encoder", heads=HEADS)
    assert only.about["encoder"] == "target_encoder" and "target" not in only.params
    jax.tree.map(np.testing.assert_array_equal, only.params["encoder"], both.params["target"])


def test_vjepas_checkpoint(tmp_path):
    encoder, target, predictor = vjepa(tmp_path / "vitl16.pth.tar", 1)
    found = read(tmp_path / "vitl16.pth.tar", heads=HEADS)
    assert (found.layout, found.licence) == ("vjepa", "CC-BY-NC-4.0")
    assert found.encoder["position_grid"] == found.predictor["position_grid"] == (8, 4, 4)
    assert found.input == {"size": 32, "frames": 16, "anchor": 0, "names_objects": False}
    video, grid = pixels(1, 16, 32, 32, 3), (8, 4, 4)
    with torch.no_grad():
        tokens = encoder(normal(video, found).transpose(1, 2))
        np.testing.assert_allclose(encode(found, video), tokens, **CLOSE)
        theirs = predictor(tokens[:, EVEN], torch.tensor(EVEN), torch.tensor(ODD), 1)
    np.testing.assert_allclose(predict(found, tokens.numpy(), EVEN, ODD, grid), theirs, **CLOSE)


def test_a_predictors_mask_token_is_the_one_that_is_named(tmp_path):
    *_, predictor = vjepa(tmp_path / "vitl16.pth.tar", 1)
    for named, chosen in (({}, 1), ({"mask_token": 0}, 0), ({"mask_token": 1}, 1)):
        found = read(tmp_path / "vitl16.pth.tar", heads=HEADS, **named)
        assert f"the predictor's mask token is number {chosen} of 0..1, of norms" in found.about["notes"][0]
        theirs = predictor.mask_tokens[chosen].detach().flatten()
        np.testing.assert_array_equal(found.params["predictor"]["mask_token"], theirs)


def test_a_mask_token_that_was_never_trained_is_not_taken(tmp_path):
    """In runs with one clip length only number 0 is trained. The others stay 0."""
    *_, predictor = vjepa(tmp_path / "vitl16.pth.tar", 1)
    content = torch.load(tmp_path / "vitl16.pth.tar", weights_only=True)
    (name,) = (name for name in content["predictor"] if name.endswith("mask_tokens.1"))
    content["predictor"][name].zero_()
    torch.save(content, tmp_path / "other.pth.tar")
    found = read(tmp_path / "other.pth.tar", heads=HEADS)
    assert found.about["notes"][0].startswith("the predictor's mask token is number 0 of 0..1, of norms ")
    theirs = predictor.mask_tokens[0].detach().flatten()
    np.testing.assert_array_equal(found.params["predictor"]["mask_token"], theirs)
    with pytest.raises(CheckpointError, match="mask_token = 2: the predictor has 2, from 0"):
        read(tmp_path / "vitl16.pth.tar", heads=HEADS, mask_token=2)


@pytest.mark.slow
def test_vjepas_positions_on_another_grid(tmp_path):
    encoder, _, _ = vjepa(tmp_path / "vitl16.pth.tar", 1)
    found = read(tmp_path / "vitl16.pth.tar", heads=HEADS)
    video = pixels(1, 6, 48, 24, 3)
    with torch.no_grad():
        table = encoder.pos_embed.reshape(1, 8, 4, 4, WIDTH).permute(0, 4, 1, 2, 3)
        scales = 3 / 8, 6 / 4, 3 / 4
        resized = torch.nn.functional.interpolate(table, scale_factor=scales, mode="trilinear")
        encoder.pos_embed.data = resized.permute(0, 2, 3, 4, 1).reshape(1, -1, WIDTH)
        theirs = encoder(normal(video, found).transpose(1, 2))
    np.testing.assert_allclose(encode(found, video), theirs, **CLOSE)


def test_vjepa2s_checkpoint_whose_positions_are_not_used(tmp_path):
    encoder, _, predictor = vjepa(tmp_path / "vitl.pt", 2)
    found = read(tmp_path / "vitl.pt", heads=HEADS)
    assert (found.layout, found.licence) == ("vjepa2", "MIT")
    assert found.encoder["positions"] == found.predictor["positions"] == "rope_tile"
    assert found.encoder["position_grid"] == () and found.predictor["heads"] == 12
    video, rotary = pixels(1, 4, 32, 24, 3), Rotary("tile", (2, 4, 3))
    with torch.no_grad():
        tokens = encoder(normal(video, found).transpose(1, 2), rotary)
        theirs = predictor(tokens[:, EVEN], torch.tensor(EVEN), torch.tensor(ODD), 1, rotary)
    np.testing.assert_allclose(encode(found, video), tokens, **CLOSE)
    np.testing.assert_allclose(predict(found, tokens.numpy(), EVEN, ODD, (2, 4, 3)), theirs, **CLOSE)


class Modern(Vit):
    """V-JEPA 2.1's encoder: a norm for each of four levels, a tokeniser and a code for each of clips and images."""

    def __init__(self):
        super().__init__(**SIZE, tubelet=2)
        del self.norm
        self.norms_block = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(4))
        image = torch.nn.Conv3d(3, WIDTH, (1, 8, 8), (1, 8, 8))
        self.patch_embed_img = torch.nn.ModuleDict({"proj": image})
        self.img_mod_embed, self.video_mod_embed = (torch.nn.Parameter(torch.zeros(1, 1, WIDTH)) for _ in range(2))

    def forward(self, x, rotary):
        images = x.shape[2] == 1
        tokeniser, code = (
            (self.patch_embed_img, self.img_mod_embed) if images else (self.patch_embed, self.video_mod_embed)
        )
        x = tokeniser["proj"](x).flatten(2).transpose(1, 2) + code
        for block in self.blocks:
            x = block(x, rotary, torch.arange(x.shape[1]))
        return self.norms_block[-1](x)


@pytest.mark.parametrize("frames", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_the_last_level_of_vjepa_2_1(tmp_path, frames):
    encoder = shaken(Modern())
    predictor = {"module.backbone.predictor_embed.0.weight": torch.zeros(24, WIDTH)}
    torch.save({"ema_encoder": prefixed(encoder, "module."), "predictor": predictor}, tmp_path / "vitb.pt")
    found = read(tmp_path / "vitb.pt", heads=HEADS, images=frames == 1)
    assert (found.layout, found.licence, found.about["encoder"]) == ("vjepa2.1", "MIT", "ema_encoder")
    assert found.predictor is None and "predictor" not in found.params
    assert any("left out: it has 'embed.0.weight'" in note for note in found.about["notes"])
    assert found.encoder["positions"] == "rope" and found.encoder["position_grid"] == (1, 32, 32)  # 256 pixels of 8
    video, grid = pixels(1, frames, 32, 48, 3), (frames // 2 or 1, 4, 6)
    with torch.no_grad():
        theirs = encoder(normal(video, found).transpose(1, 2), Rotary("interleave", grid, span=31))
    np.testing.assert_allclose(encode(found, video), theirs, **CLOSE)


@pytest.mark.slow
def test_a_clips_encoder_sees_an_image_as_a_clip_that_stands_still(tmp_path):
    vjepa(tmp_path / "vitl.pt", 2)
    clips, images = (read(tmp_path / "vitl.pt", heads=HEADS, images=images) for images in (False, True))
    image = pixels(1, 1, 32, 32, 3)
    np.testing.assert_allclose(encode(images, image), encode(clips, image.repeat(2, 1)), **CLOSE)
    assert images.input["frames"] == 1 and images.encoder["tubelet"] == 1


def modern(path):
    torch.save({"ema_encoder": prefixed(shaken(Modern()), "module.backbone.")}, path)


def timm(path):
    torch.save(shaken(Vit(**SIZE, positions=reference.table_2d(WIDTH, 4))).state_dict(), path)


RANKS = {  # what takes the place of an array
    "a number": lambda a: np.float32(1),
    "no rows": lambda a: np.ones((0, *a.shape[1:]), np.float32),
    "one axis more": lambda a: a[..., None],
    "other sizes": lambda a: np.ones((3, 5), np.float32),
}


@pytest.mark.parametrize(
    "write",
    [ijepa, *(pytest.param(each, marks=pytest.mark.slow) for each in (
        lambda path: vjepa(path, 1), lambda path: vjepa(path, 2), modern, timm))],
    ids=["ijepa", "vjepa", "vjepa2", "vjepa2.1", "timm"],
)  # fmt: skip
@pytest.mark.parametrize("other", [
    "a number", *(pytest.param(kind, marks=pytest.mark.slow) for kind in list(RANKS)[1:])])  # fmt: skip
def test_an_array_of_any_other_shape_never_ends_in_a_traceback(write, other, tmp_path, monkeypatch):
    write(tmp_path / "weights.pt")
    found = files.tensors(tmp_path / "weights.pt")
    arrays = {name: found[name] for name in found}
    refused = 0
    for name, array in arrays.items():
        given = arrays | {name: np.asarray(RANKS[other](array), np.float32)}
        shapes = {key: value.shape for key, value in given.items()}
        changed = files.Tensors(tmp_path / "weights.pt", shapes, given.__getitem__)
        monkeypatch.setattr(files, "tensors", lambda path, changed=changed: changed)
        for images in (False, True):
            try:
                read(tmp_path / "weights.pt", heads=HEADS, images=images)
            except CheckpointError as error:
                refused += "\n" not in str(error)
            # what is not used, or left out with a note, may have any shape
    assert refused > len(arrays)

"""Mutants of the family's other members: V-JEPA 2.1, Point-JEPA, Audio-JEPA."""

from tests.mutants.mutant import of, tests_of

(DENSE,) = tests_of("objectives/", "dense")
(LEVELS,) = tests_of("weights/", "levels")
OUTPUTS = f"{DENSE}the_public_codes_outputs_and_losses"
(POINTS,) = tests_of("objectives/", "points")
(RUNS,) = tests_of("masks/", "runs")
(CLOUDS,) = tests_of("data/", "points")
GOLDEN = f"{POINTS}the_public_codes_tokens_predictions_and_loss"
AMOUNTS = f"{RUNS}amounts_are_those_of_the_public_samplers"
SURFACE = f"{CLOUDS}the_surface_of_a_mesh_is_sampled_uniformly"
BRUTE = f"{CLOUDS}farthest_points_neighbours_and_order_are_those_of_all_pairs"
FBANK = "tests/data/test_sounds.py::test_spectrograms_are_those_of_the_public_code"
SHARE = "tests/masks/test_random.py::test_the_share_of_hidden_tokens_is_that_of_the_public_code_and_uniform"
IMAGES = f"{DENSE}images_add_the_loss_of_one_frame_of_each_clip"
RAMP = f"{DENSE}the_weight_of_visible_tokens_rises_as_published"

FAMILY = (
    *of(
        "cjepa_jax/objectives/dense.py",
        ("jax.lax.rsqrt(jnp.maximum(near, 1.0))", "1 / jnp.maximum(near, 1.0)", OUTPUTS),
        ("levels = full.reshape(*full.shape[:-1], -1, self._encoder.width)", "levels = full", OUTPUTS),
        ("losses.l1_tokens(visible, wanted)", "losses.l1_tokens(prediction, wanted)", OUTPUTS),
        ("(1.0 - self.images) * total", "total", IMAGES),
        ("jnp.clip(share, 0.0, 1.0)", "share", RAMP),
    ),
    *of(
        "cjepa_jax/models/predictor.py",
        ("x + (still if image else clip)", "x + (clip if image else still)", OUTPUTS),
        ("GELU[self.gelu](Dense(self.embed_units", "(Dense(self.embed_units", OUTPUTS),
    ),
    *of(
        "cjepa_jax/weights/levels.py",
        ("48: (11, 23, 37, 47)", "48: (11, 23, 35, 47)", f"{LEVELS}levels_of_the_published_depths"),
        ("depth * (i + 1) // count - 1", "depth * i // count", f"{LEVELS}all_levels_are_read_with_the_predictor"),
    ),
    *of(
        "cjepa_jax/models/points.py",
        ("x + places if self.every or not i else x", "x + places", GOLDEN),
        ("jnp.concatenate([whole, x], axis=-1)", "jnp.concatenate([x, whole], axis=-1)", GOLDEN),
        ("places, places + mask_token)", "places, places)", GOLDEN),
    ),
    *of(
        "cjepa_jax/objectives/points.py",
        ("standardize(last.astype", "standardize(_.astype", GOLDEN),
        ("beta: float = 2.0", "beta: float = 1.0", GOLDEN),
    ),
    *of(
        "cjepa_jax/data/clouds.py",
        ("distance = np.minimum(distance, ", "distance = (", BRUTE),
        ("centres.sum(-1).argmin()", "centres[:, 0].argmin()", BRUTE),
    ),
    *of(
        "cjepa_jax/masks/runs.py",
        (
            "int(rng.uniform(*context) * len(left))",
            "int(rng.uniform(*context) * tokens)",
            AMOUNTS,
        ),
    ),
    *of(
        "cjepa_jax/data/formats/point_files.py",
        (
            "share.sum(1, keepdims=True) > 1",
            "share.sum(1, keepdims=True) > 2",
            SURFACE,
        ),
    ),
    *of(
        "cjepa_jax/data/mel.py",
        ("PREEMPHASIS = 0.97", "PREEMPHASIS = 0.9", FBANK),
        ("cut = cut - cut.mean(1, keepdims=True)", "pass", FBANK),
        ("np.arange(size) / (size - 1)", "np.arange(size) / size", FBANK),
        ("OVERLAP = 2.5", "OVERLAP = 2.4", FBANK),
    ),
    *of(
        "cjepa_jax/masks/random.py",
        ("int(tokens * (1 - rng.uniform(*ratio)))", "round(tokens * (1 - rng.uniform(*ratio)))", SHARE),
    ),
)

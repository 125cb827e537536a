"""Mutants of the way from scenes to batches, and of the simulated worlds."""

from tests.mutants.mutant import of, tests_of

PIPELINE, BATCHING, PACKING, PROCESSES = tests_of("data/", "pipeline", "batching", "packing", "processes")
QUESTIONS, TRANSFORMS, RLE, BANDS = tests_of("data/", "questions", "transforms", "formats/rle", "formats/bands")
WORLDS, BALLS, PHYSICS = tests_of("data/worlds/", "worlds", "balls", "physics")
(SELECT,) = tests_of("data/segmenters/", "select")
(LEROBOT,) = tests_of("data/sources/", "lerobot")
LEROBOT_WINDOWS = f"{LEROBOT}windows_have_the_frames_actions_and_states_of_their_episode"
LEROBOT_STRIDE = f"{LEROBOT}a_stride_skips_frames_and_joins_their_actions"
LEROBOT_SIZES = f"{LEROBOT}rows_of_another_episode_and_sizes_without_limit_are_refused"

DATA = (
    *of(
        "cjepa_jax/data/sources/lerobot.py",
        ("[episode, 2]) + first / index.fps", "[episode, 2])", LEROBOT_WINDOWS),
        ("index.rows[episode]) + first", "index.rows[episode])", LEROBOT_WINDOWS),
        (
            "shrink)[:: self.stride]",
            "shrink)[: self.frames]",
            f"{LEROBOT}a_stride_skips_frames_and_joins_their_actions",
        ),
    ),
    *of(
        "cjepa_jax/data/formats/lerobot_files.py",
        (' - whole["dataset_from_index"][begins]', "", LEROBOT_WINDOWS),
        ("if size > MOST_BYTES:", "if size > 2**60:", LEROBOT_SIZES),
        ("if meta.num_rows > most:", "if meta.num_rows > 8 * most:", LEROBOT_SIZES),
        (
            "KEY.fullmatch(key)",
            "len(key)",
            f"{LEROBOT}folders_that_do_not_fit_are_refused_in_one_line",
        ),
    ),
    *of(
        "cjepa_jax/data/pipeline.py",
        (
            "np.random.default_rng([self.seed, DRAW, index, epoch])",
            "np.random.default_rng([self.seed, DRAW, index, 0])",
            f"{PIPELINE}epochs_redraw_the_objects",
        ),
        (
            "np.random.default_rng([self.seed, DRAW, index, epoch])",
            "np.random.default_rng([self.seed, DRAW, scene, epoch])",
            f"{PIPELINE}unreadable_scenes_are_replaced_by_the_next_and_flagged",
        ),
        (
            "np.random.SeedSequence([seed, SHUFFLE, epoch])",
            "np.random.SeedSequence([seed, SHUFFLE, 0])",
            f"{PIPELINE}every_scene_once_per_epoch_in_a_new_order",
        ),
        (
            "np.random.SeedSequence([seed, SHUFFLE, epoch])",
            "np.random.SeedSequence([0, SHUFFLE, epoch])",
            f"{PIPELINE}seeds_differ",
        ),
        (
            "grain.experimental.index_shuffle(place, max_index=count - 1, seed=shuffle_seed, rounds=4), epoch",
            "place, epoch",
            f"{PIPELINE}seeds_differ",
        ),
        (
            "position = step * self.batch + self.process * local + row",
            "position = step * self.batch + row",
            f"{PROCESSES}every_scene_once_per_epoch_though_the_number_of_processes_changes",
        ),
        (
            "grain.MapDataset.range(start * local, stop * local)",
            "grain.MapDataset.range(0, (stop - start) * local)",
            f"{PIPELINE}resume_at_any_step",
        ),
        (
            "blank = blank & masks[chosen].any(0)",
            "blank = blank",
            f"{PIPELINE}zero_pixels_blanks_the_visible_masks_of_the_removed",
        ),
        (
            "blank = blank & masks[chosen].any(0)",
            "blank = masks[chosen].any(0)",
            f"{PIPELINE}an_anchor_keeps_the_first_tubelet_of_the_clip",
        ),
        (
            "if not chosen.any():\n                return video, np.False_",
            "if not chosen.any():\n                return video, np.True_",
            f"{PIPELINE}fallback_scenes",
        ),
        (
            "chosen[kept] = removed[: len(kept)]",
            "chosen[: len(kept)] = removed[: len(kept)]",
            f"{PIPELINE}more_objects_than_k_keep_the_largest",
        ),
        (
            '"context": ~np.any([masked, *dropped], axis=0)',
            '"context": ~masked',
            f"{PIPELINE}tokens_that_a_mask_drops_are_neither_context_nor_hidden",
        ),
        (
            'out["hidden"] = masked',
            'out["hidden"] = ~out["context"]',
            f"{PIPELINE}tokens_that_a_mask_drops_are_neither_context_nor_hidden",
        ),
        (
            "if self.max_removed and removed.sum() > self.max_removed:",
            "if False:",
            f"{PIPELINE}a_mask_that_removes_more_than_the_model_can_tell_apart_is_refused",
        ),
        (
            'for scene in chosen if not scene["replaced"]]',
            "for scene in chosen]",
            f"{PIPELINE}unreadable_held_out_scenes_are_left_out_rather_than_replaced",
        ),
        (
            "object_valid = object_patches.any(1)",
            "object_valid = np.arange(self.max_objects) < len(kept)",
            f"{PIPELINE}degenerate_scenes_become_batches",
        ),
        (
            "return window.frames(without, self.size), np.True_",
            "return without, np.True_",
            f"{PIPELINE}a_crop_is_the_same_for_the_scene_without_its_objects",
        ),
    ),
    *of(
        "cjepa_jax/data/batching.py",
        (
            'np.argsort(-area, kind="stable")[:limit]',
            'np.argsort(area, kind="stable")[:limit]',
            f"{BATCHING}of_too_many_objects_the_largest_stay_in_their_order",
        ),
        (
            'np.sort(np.argsort(-area, kind="stable")[:limit])',
            'np.argsort(-area, kind="stable")[:limit]',
            f"{BATCHING}of_too_many_objects_the_largest_stay_in_their_order",
        ),
        (
            "number[own][order] = 1 + np.arange(per_shard) - first",
            "number[own][order] = 1",
            f"{PACKING}every_token_once_in_a_row_of_its_shard",
        ),
        (
            "scene % per_shard * tokens + token",
            "scene * tokens + token",
            f"{BATCHING}rows_list_each_scenes_context_within_its_shard",
        ),
        (
            "np.full(shards * rows * length, per_shard * tokens, np.int32)",
            "np.zeros(shards * rows * length, np.int32)",
            f"{BATCHING}rows_list_each_scenes_context_within_its_shard",
        ),
        (
            "if all(assign(shard, shape) is not None for shard in counts):",
            "if assign(counts[0], shape) is not None:",
            f"{PACKING}the_largest_shard_decides_for_all",
        ),
        ("MULTIPLE = 8", "MULTIPLE = 16", f"{BATCHING}row_lengths_are_few_multiples_of_eight_that_end_at_the_grid"),
        (
            "tuple(sorted(lengths | {tokens}))",
            "tuple(sorted(lengths))",
            f"{BATCHING}row_lengths_are_few_multiples_of_eight_that_end_at_the_grid",
        ),
        (
            "return _first_fit(counts, shape) if row is None else row",
            "return row",
            f"{PACKING}scenes_find_room_where_there_is_hardly_any",
        ),
        (
            "if (filled > length).any():\n            return None",
            "if False:\n            return None",
            f"{PACKING}scenes_find_room_where_there_is_hardly_any",
        ),
        (
            "int(np.ceil(share * scenes / grids - 1e-9))",
            "int(np.ceil(share * scenes / grids))",
            f"{PACKING}shapes_are_shares_of_the_rows_that_hold_any_scenes",
        ),
    ),
    *of(
        "cjepa_jax/data/transforms.py",
        (
            "flip = bool(rng.random() < 0.5)",
            "flip = False",
            f"{TRANSFORMS}random_crop_flips_half_of_the_time_and_spans_its_scale",
        ),
        ("columns[::-1] if self.flip else columns", "columns", f"{TRANSFORMS}flip_mirrors_everything"),
        (
            "centres = (np.arange(size) + 0.5) / size",
            "centres = np.arange(size) / size",
            f"{TRANSFORMS}masks_follow_their_pixels",
        ),
        (
            "(height - side) // 2, (width - side) // 2",
            "0, 0",
            f"{TRANSFORMS}the_centre_square_is_as_wide_as_the_short_side",
        ),
        ("cv2.INTER_AREA if", "cv2.INTER_NEAREST if", f"{TRANSFORMS}area_interpolation_keeps_the_mean"),
        (
            "area = height * width * rng.uniform(*scale)",
            "area = height * width * rng.uniform(*scale) ** 2",
            f"{TRANSFORMS}random_crop_flips_half_of_the_time_and_spans_its_scale",
        ),
        (
            "round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))",
            "round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))",
            f"{TRANSFORMS}a_crop_is_as_wide_as_its_ratio_says",
        ),
    ),
    *of(
        "cjepa_jax/data/questions.py",
        ("int(np.searchsorted(DISTANCES, distance))", "0", f"{QUESTIONS}copying_the_factual_outcome_scores_half"),
        (
            "bool(known.happens[0, j]), bool(known.happens[k + 1, j])",
            "bool(known.happens[0, j]), bool(known.happens[k, j])",
            f"{QUESTIONS}answers_are_what_the_simulation_shows",
        ),
        (
            "if all(waiting[alike, other] for other in CELLS):",
            "if any(waiting[alike, other] for other in CELLS[:2]):",
            f"{QUESTIONS}copying_the_factual_outcome_scores_half",
        ),
        (
            "if j == k:\n                continue",
            "if False:\n                continue",
            f"{QUESTIONS}answers_are_what_the_simulation_shows",
        ),
        ("known.final[k + 1, j]", "known.final[0, j]", f"{QUESTIONS}answers_are_what_the_simulation_shows"),
    ),
    *of(
        "cjepa_jax/data/formats/resize.py",
        (
            "range(TOGETHER, channels, TOGETHER)",
            "range(TOGETHER, channels - 1, TOGETHER)",
            f"{BANDS}channels_are_resized_one_like_the_other",
        ),
    ),
    *of(
        "cjepa_jax/data/formats/bands.py",
        ("[2, 1, 0, 3]", "[0, 1, 2, 3]", f"{BANDS}four_channels_in_a_png_keep_their_order"),
        ("begin + count > size", "begin > size", f"{BANDS}files_that_are_cut_short"),
    ),
    *of(
        "cjepa_jax/data/formats/rle.py",
        ("np.arange(len(runs)) % 2 == 1", "np.arange(len(runs)) % 2 == 0", f"{RLE}list_of_runs"),
        (".reshape(width, height).T", ".reshape(height, width)", f"{RLE}list_of_runs"),
        ("(data & 31) << (5 * place)", "(data & 31) << (4 * place)", f"{RLE}round_trip_and_the_reference"),
        ("for first in (1, 2):", "for first in (1,):", f"{RLE}round_trip_and_the_reference"),
        ("if runs.sum() != height * width:", "if runs.sum() > height * width:", f"{RLE}bad_masks"),
    ),
    *of(
        "cjepa_jax/data/segmenters/select.py",
        (
            "np.argsort(-masks.sum((1, 2)), kind",
            "np.argsort(masks.sum((1, 2)), kind",
            f"{SELECT}every_pixel_goes_to_the_smallest_mask",
        ),
        (
            "both <= most * (area[first] + area[left] - both)",
            "both <= most * (area[first] + area[left])",
            f"{SELECT}distinct_keeps_the_best_of_those_that_are_the_same",
        ),
        (
            "left, kept = np.argsort(-scores",
            "left, kept = np.argsort(scores",
            f"{SELECT}distinct_keeps_the_best_of_those_that_are_the_same",
        ),
        ("line.shape[1] - line[:, ::-1].argmax(1)", "line.shape[1] - 1 - line[:, ::-1].argmax(1)", f"{SELECT}boxes"),
    ),
    *of(
        "cjepa_jax/data/worlds/base.py",
        ('"eval": 1, "test": 4', '"eval": 1, "test": 1', f"{WORLDS}seeds_splits_and_scenes_differ"),
        ('"train": 0, "eval": 1', '"train": 0, "eval": 0', f"{WORLDS}seeds_splits_and_scenes_differ"),
        ('"colour": 6, "layout": 7', '"colour": 6, "layout": 6', f"{WORLDS}every_split_has_draws_of_its_own"),
        (
            "default_rng([self.seed, SPLITS[self.split], i])",
            "default_rng([0, SPLITS[self.split], i])",
            f"{WORLDS}seeds_splits_and_scenes_differ",
        ),
        (
            "np.eye(len(asked) + 1, len(asked), -1, dtype=bool)",
            "np.eye(len(asked) + 1, len(asked), 0, dtype=bool)",
            f"{QUESTIONS}answers_are_what_the_simulation_shows",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/physics.py",
        (
            "return mass * (w * w / 2)",
            "return mass * (w * w)",
            f"{PHYSICS}angular_momentum_without_walls_and_gravity",
        ),
        (
            "return mass * ((w * w + h * h) / 3)",
            "return mass * ((w * w + h * h) / 12)",
            f"{PHYSICS}momentum_and_energy_without_walls_and_gravity",
        ),
        (
            "shape.elasticity = physics.restitution**0.5",
            "shape.elasticity = physics.restitution",
            f"{PHYSICS}free_fall_and_walls",
        ),
        (
            "space.gravity = (0.0, physics.gravity)",
            "space.gravity = (0.0, -physics.gravity)",
            f"{PHYSICS}free_fall_and_walls",
        ),
        (
            "bit = 0 if gone else 1 << (layer + 1)",
            "bit = 1 << (layer + 1)",
            f"{PHYSICS}untouched_bodies_stay_bit_equal",
        ),
        ("space.use_spatial_hash(0.25, 127)", "space.use_spatial_hash", f"{PHYSICS}untouched_bodies_stay_bit_equal"),
        ("space.step(dt / substeps)", "space.step(dt)", f"{PHYSICS}free_fall_and_walls"),
        (
            "touched[pairs[:, 0], pairs[:, 1]] = touched[pairs[:, 1], pairs[:, 0]] = True",
            "touched[pairs[:, 0], pairs[:, 1]] = True",
            f"{PHYSICS}the_contact_graph_is_symmetric_and_leaves_walls_out",
        ),
        (
            "if b >= 0 and moves[y] and time[x] <= last:",
            "if b >= 0 and time[x] <= last:",
            f"{PHYSICS}reached_follows_chains_of_contacts_in_time",
        ),
        (
            "if b >= 0 and moves[y] and time[x] <= last:",
            "if b >= 0 and moves[y]:",
            f"{PHYSICS}reached_follows_chains_of_contacts_in_time",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/balls.py",
        (
            'np.argsort(-setup.depth, kind="stable")',
            'np.argsort(setup.depth, kind="stable")',
            f"{BALLS}nearer_objects_hide_farther_ones",
        ),
        (
            "return final[:, 0] > 0.5, final",
            "return final[:, 1] > 0.5, final",
            f"{QUESTIONS}answers_are_what_the_simulation_shows",
        ),
        ("gravity=3.0 * bool(", "gravity=0.0 * bool(", f"{BALLS}gravity_and_walls_can_be_fixed_and_otherwise_vary"),
    ),
)

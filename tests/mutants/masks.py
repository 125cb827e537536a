"""Mutants of the masks."""

from tests.mutants.mutant import of, tests_of

OBJECTS, BLOCKS, MULTIBLOCK = tests_of("masks/", "objects", "blocks", "multiblock")
TUBES, RANDOM, DISPLACED, PUBLISHED = tests_of("masks/", "tubes", "random", "displaced", "published")
(CHECK,) = tests_of("masks/", "check")
ALGORITHM_2 = f"{OBJECTS}draw_follows_algorithm_2"

MASKS = (
    *of(
        "cjepa_jax/masks/objects.py",
        ("share >= area[0] - 1e-9", "share > area[0] + 1e-9", f"{OBJECTS}area_bounds_are_inclusive"),
        ("share <= area[1] + 1e-9", "share < area[1] - 1e-9", f"{OBJECTS}area_bounds_are_inclusive"),
        ("share <= area[1] + 1e-9", "share <= 1", ALGORITHM_2),
        ("object_valid & (share", "(share", ALGORITHM_2),
        (
            "rng.integers(1, max_objects + 1)",
            "rng.integers(1, max(max_objects, 2))",
            f"{OBJECTS}number_of_objects_is_uniform_up_to_what_is_eligible",
        ),
        (
            "rng.integers(1, max_objects + 1)",
            "rng.integers(0, max_objects + 1)",
            f"{OBJECTS}number_of_objects_is_uniform_up_to_what_is_eligible",
        ),
        (
            "min(int(rng.integers(1, max_objects + 1)), len(eligible))",
            "min(max_objects, len(eligible))",
            f"{OBJECTS}number_of_objects_is_uniform_up_to_what_is_eligible",
        ),
        (
            "rng.choice(eligible, count, replace=False)",
            "eligible[:count]",
            f"{OBJECTS}epochs_cover_eligible_objects_uniformly",
        ),
        (
            "object_patches[chosen].any(0) & maskable",
            "object_patches[chosen].any(0)",
            f"{OBJECTS}the_anchor_keeps_the_first_tubelets_visible",
        ),
        ("object_patches[chosen].any(0) & maskable", "object_patches[chosen].all(0) & maskable", ALGORITHM_2),
        (
            "if masked.any() and not masked.all():\n            removed",
            "if masked.any():\n            removed",
            f"{OBJECTS}objects_that_only_together_hide_everything_are_redrawn",
        ),
        (
            "REDRAWS if len(eligible) else 0",
            "1 if len(eligible) else 0",
            f"{OBJECTS}objects_that_only_together_hide_everything_are_redrawn",
        ),
        (
            "patch // word)).any(-1)",
            "patch // word)).all(-1)",
            f"{OBJECTS}patches_match_loops",
        ),
        (
            "np.bitwise_or.reduce(np.bitwise_or.reduce(lines, 4), 2)",
            "np.bitwise_or.reduce(lines, 4)[:, :, 0]",
            f"{OBJECTS}patches_match_loops",
        ),
        ("masks, tubelet = masks[:, None], 1", "masks = masks[:, None]", f"{OBJECTS}patches_match_loops"),
    ),
    *of(
        "cjepa_jax/masks/blocks.py",
        (
            "scale: tuple[float, float] = (0.15, 0.2)",
            "scale: tuple[float, float] = (0.15, 0.3)",
            f"{BLOCKS}a_block_has_the_stated_area_and_aspect",
        ),
        (
            "aspect: tuple[float, float] = (0.75, 1.5)",
            "aspect: tuple[float, float] = (0.5, 1.5)",
            f"{BLOCKS}a_block_has_the_stated_area_and_aspect",
        ),
        ("count: int = 4", "count: int = 1", f"{BLOCKS}four_blocks_by_default"),
        ("masked &= maskable", "masked = masked", f"{BLOCKS}an_anchor_keeps_the_first_times"),
        ("if masked.all():", "if False:", f"{BLOCKS}something_is_always_hidden_and_something_seen"),
        (
            "min(count * rng.uniform(*scale), 0.9)",
            "min(rng.uniform(*scale), 0.9)",
            f"{BLOCKS}without_a_grid_tokens_are_scattered",
        ),
    ),
    *of(
        "cjepa_jax/masks/grid.py",
        (
            "round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))",
            "round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))",
            f"{BLOCKS}a_block_has_the_stated_area_and_aspect",
        ),
        (
            "rng.integers(0, free[0]), rng.integers(0, free[1])",
            "rng.integers(0, free[0]), 0",
            f"{BLOCKS}blocks_lie_anywhere",
        ),
        ("max(side - own + last, 1)", "max(side - own, 1)", f"{BLOCKS}blocks_lie_anywhere"),
        (
            "max(side - own + last, 1)",
            "max(side - own + 1, 1)",
            f"{PUBLISHED}places_are_as_likely_as_in_the_public_sampler",
        ),
        (
            "mask & (np.cumsum(mask).reshape(mask.shape) <= count)",
            "mask & (np.cumsum(mask).reshape(mask.shape) < count)",
            f"{PUBLISHED}a_context_cut_to_its_batch_is_shorter_and_its_start",
        ),
        (
            "np.broadcast_to(plane, (times, *plane.shape)).ravel()",
            "np.repeat(plane.ravel(), times)",
            f"{BLOCKS}a_block_goes_through_all_times",
        ),
        (
            "fixed[: anchor * (tokens // times)] = True",
            "fixed[: tokens // times] = True",
            f"{OBJECTS}the_anchor_keeps_the_first_tubelets_visible",
        ),
        ("if anchor >= times:", "if anchor > times:", f"{OBJECTS}grids_and_anchors_that_do_not_fit_are_refused"),
    ),
    *of(
        "cjepa_jax/masks/displaced.py",
        ("else n == min(shared))", "else n == max(shared))", f"{DISPLACED}every_place_apart_is_as_likely"),
        ("if (down, right) != (0, 0)]", "if down or not right]", f"{DISPLACED}every_place_apart_is_as_likely"),
        ("fits[rng.integers(len(fits))]", "fits[0]", f"{DISPLACED}every_place_apart_is_as_likely"),
        ("(n if meets", "(True if meets", f"{DISPLACED}a_share_of_the_displaced_shapes_meets_the_objects"),
        (
            "for axes in ((1,), (2,), (1, 2))]",
            "for axes in ((1,),)]",
            f"{DISPLACED}a_shape_as_large_as_the_plane_is_mirrored_or_stays",
        ),
        (
            "masked, np.zeros_like(removed)\n\n\ndef in_place",
            "masked, removed\n\n\ndef in_place",
            f"{DISPLACED}it_is_the_shape_of_the_object_mask_at_another_place",
        ),
    ),
    *of(
        "cjepa_jax/masks/random.py",
        (
            "_choose(rng, masked.sum(), masked.size",
            "_choose(rng, 0.5 * masked.sum(), masked.size",
            f"{RANDOM}matched_hides_as_much_as_the_object_mask_of_the_same_scene",
        ),
        ("round(wanted / each)", "round(wanted)", f"{RANDOM}tubes_are_hidden_at_all_times"),
        (
            "rng.choice(plane, count, replace=False)",
            "plane[:count]",
            f"{RANDOM}the_ratio_is_met_and_every_token_hidden_as_often",
        ),
        ("ratio: float = 0.75", "ratio: float = 0.6", f"{RANDOM}the_ratio_is_met_and_every_token_hidden_as_often"),
        ("masked.ravel() & maskable", "masked.ravel()", f"{RANDOM}an_anchor_keeps_the_first_times"),
    ),
    *of(
        "cjepa_jax/masks/tubes.py",
        (
            "masked = first(masked, min(hidden))",
            "masked = first(masked, max(hidden))",
            f"{PUBLISHED}vjepas_masks_cut_to_their_batch_begin_as_the_whole_ones",
        ),
        (
            "max(masked.size - max(hidden), 1)",
            "max(masked.size - min(hidden), 1)",
            f"{PUBLISHED}vjepas_masks_cut_to_their_batch_begin_as_the_whole_ones",
        ),
        ("((8, 0.15), (2, 0.7))", "((8, 0.15), (2, 0.5))", f"{TUBES}both_kinds_with_equal_chances"),
        ("kinds[int(rng.integers(len(kinds)))]", "kinds[0]", f"{TUBES}both_kinds_with_equal_chances"),
        ("for _ in range(count)]", "for _ in range(1)]", f"{TUBES}amounts_are_the_published_samplers"),
    ),
    *of(
        "cjepa_jax/masks/multiblock.py",
        (
            "lowest + u * (highest - lowest)",
            "highest - u * (highest - lowest)",
            f"{PUBLISHED}one_number_gives_area_and_shape_of_a_target",
        ),
        (
            "least = min(least, int(context_block(",
            "least = max(least, int(context_block(",
            f"{PUBLISHED}a_context_cut_to_its_batch_is_shorter_and_its_start",
        ),
        (
            "~context, ~target & ~context",
            "~context, ~context",
            f"{MULTIBLOCK}something_is_always_hidden_and_something_seen",
        ),
        (
            "masked, dropped = target & ~context,",
            "masked, dropped = target,",
            f"{MULTIBLOCK}a_context_that_is_too_small_drives_targets_out",
        ),
        (
            "if context.sum() > least:",
            "if context.sum() > 0:",
            f"{MULTIBLOCK}a_context_that_is_too_small_drives_targets_out",
        ),
        ("context &= ~block", "context = context", f"{MULTIBLOCK}amounts_are_the_published_samplers"),
        (
            "blocks = [rectangle(rng, height, width, rows, cols, last=not corner) for _ in range(targets)]",
            "blocks = [rectangle(rng, height, width, rows, cols, last=not corner)]",
            f"{MULTIBLOCK}amounts_are_the_published_samplers",
        ),
        (
            "min_keep * min(1.0, rows * cols / PLANE)",
            "min_keep",
            f"{MULTIBLOCK}a_context_that_is_too_small_drives_targets_out",
        ),
    ),
    *of(
        "cjepa_jax/masks/check.py",
        (
            "elif self.hides and not masked.any():",
            "elif not masked.any():",
            f"{CHECK}an_objective_that_ignores_masks_may_have_one_that_hides_nothing",
        ),
        (
            "(masked | dropped[0] if dropped else masked).all()",
            "masked.all()",
            f"{CHECK}what_it_may_not_return_is_refused_in_one_line",
        ),
        ("(removed & ~object_valid).any()", "False", f"{CHECK}what_it_may_not_return_is_refused_in_one_line"),
        ("array.dtype != np.bool_ or ", "", f"{CHECK}what_it_may_not_return_is_refused_in_one_line"),
    ),
)

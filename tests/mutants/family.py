"""Mutants of the family's other members: V-JEPA 2.1, Point-JEPA, Audio-JEPA, ACT-JEPA, ThinkJEPA."""

from tests.mutants.mutant import of, tests_of

(DENSE,) = tests_of("objectives/", "dense")
LEVELS, WORLDS, PUBLISHED_POINTS = tests_of("weights/", "levels", "worlds", "points")
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
(PYRAMID,) = tests_of("models/", "pyramid")
FLOW, FACTORED = tests_of("objectives/", "flow", "factored")
(EPE,) = tests_of("evals/", "flow")
WARP = f"{PYRAMID}warping_is_scipys_linear_interpolation_with_the_nearest_border"
SHOWN = f"{FLOW}opposite_flows_come_back_and_points_that_leave_or_do_not_come_back_are_not_shown"
REBUILT = f"{FLOW}reconstruction_is_l1_l2_and_ssim_of_the_pixels_that_count"
SMOOTH = f"{FLOW}smoothness_is_the_mean_change_of_neighbours_less_at_edges"
EXPLAINED = f"{FLOW}true_flow_at_every_level_explains_both_directions_of_all_pairs"
CYCLE = "points_that_do_not_come_back_count_in_the_cycle_and_not_in_the_reconstruction"
DEFAULTS = "a_weight_that_is_not_given_is_that_of_the_config"
SUMMED = f"{FLOW}the_loss_is_the_weighted_sum_of_its_terms_and_trains_every_part"
TRUE_FLOW = "tests/data/worlds/test_balls.py::test_true_flow_keeps_every_point_at_its_place_in_its_object"
ERRORS = f"{EPE}the_truth_scores_0_an_error_its_size_and_floors_are_those_of_the_test_pairs"
TWO = f"{FACTORED}each_kind_of_mask_has_its_predictor_and_equal_predictors_are_jepa"
IMAGES = f"{DENSE}images_add_the_loss_of_one_frame_of_each_clip"
(ACT,) = tests_of("objectives/", "act")
TERMS = f"{ACT}both_terms_by_hand"
STARTS = f"{ACT}the_present_frame_is_any_that_an_action_follows"
ALONE = f"{ACT}the_actions_depend_on_the_present_frame_and_the_goal_alone"
LEARNS = f"{ACT}every_parameter_learns_and_the_target_follows_slowly"
DEMONSTRATED = "tests/data/worlds/acting/test_rooms.py::test_an_expert_does_tasks_and_stays_at_the_goal"
CONTROL = "tests/evals/test_control.py::test_"
PLAYED = f"{CONTROL}a_trained_policy_sees_images_and_does_the_first_of_its_actions"
GOAL = f"{ACT}it_acts_with_and_without_a_goal"
(THINKS,) = tests_of("objectives/", "thinking")
LEAK = f"{THINKS}the_future_changes_no_bit_of_the_past"
GATE = f"{THINKS}a_closed_gate_is_the_model_without_embeddings_to_the_bit"
RATES = f"{THINKS}the_times_of_a_slow_step_share_a_code"
CAUSAL = f"{THINKS}the_predictor_is_causal"
FLOOR = f"{THINKS}the_loss_is_that_of_the_future_and_copying_is_a_floor"
OUTCOME = f"{THINKS}the_outcome_is_the_places_at_the_end_of_each_part"
BY_ROW = f"{THINKS}embeddings_come_from_a_file_row_by_row_up_to_the_model"
UNFIT = f"{THINKS}files_that_do_not_fit_are_refused_in_one_line"
(LEVELED,) = tests_of("objectives/", "pyramid")
FUSED = f"{LEVELED}the_pyramid_equals_numpy"
COMPARED = f"{LEVELED}levels_of_a_pyramid_are_all_that_is_compared_and_targets_do_not_teach_them"
RAMP = f"{DENSE}the_weight_of_visible_tokens_rises_as_published"

FAMILY = (
    *of(
        "cjepa_jax/models/fusion.py",
        ("found[h] + above", "above", FUSED),
        ("reversed(every[:-1])", "every[:-1]", FUSED),
        (
            ".repeat(2, axis=2)[:, :, :high]",
            ".repeat(2, axis=2)[:, :, -high:]",
            f"{LEVELED}a_square_takes_the_vector_of_the_one_that_holds_it",
        ),
        ("jax.nn.relu(self._layer", "(self._layer", FUSED),
        ("jnp.maximum(count, 1)", "side**2", f"{LEVELED}pooling_is_the_mean_of_the_masked_tokens_of_each_square"),
    ),
    *of(
        "cjepa_jax/objectives/pyramid.py",
        ('total - metrics["loss/prediction"] + self', "total + self", COMPARED),
        ('*(terms[name] for name in sorted(terms) if name.startswith("mean/"))', "", COMPARED),
    ),
    *of(
        "cjepa_jax/models/warping.py",
        ("share = at - low", "share = low - at", WARP),
        ("(row * cols + col)", "(col * rows + row)", WARP),
        ("(at < end)", "(at < end - 1)", WARP),
        ("index // side, index % side", "index % side, index // side", f"{PYRAMID}correlations_are_those_of_all_pairs"),
        ("return factor * jax.image", "return jax.image", f"{PYRAMID}a_flow_keeps_its_meaning_on_a_larger_map"),
    ),
    *of(
        "cjepa_jax/models/pyramid.py",
        (
            "nn.Conv(width, (2, 2), 2,",
            "nn.Conv(width, (3, 3), 2,",
            f"{PYRAMID}cells_are_centred_where_flows_of_their_level_are_enlarged_to",
        ),
        (
            "filters[i, j] for",
            "filters[j, i] for",
            f"{PYRAMID}the_filters_of_a_block_are_a_convolution_of_each_channel",
        ),
        (
            "most = self.limit / 2 ** (level + 1)",
            "most = self.limit",
            f"{PYRAMID}levels_halve_the_frame_and_flows_are_within_their_limit",
        ),
    ),
    *of(
        "cjepa_jax/objectives/photometric.py",
        ("mean(one * other) - a * b", "mean(one * other)", REBUILT),
        ("C1, C2 = 0.01**2, 0.03**2", "C1, C2 = 0.01**2, 0.01**2", REBUILT),
        ("seen[:, 1:-1, 1:-1]", "seen[:, 2:, 2:]", REBUILT),
        ("jnp.clip((1 - ssim(frame, warped)) / 2, 0, 1)", "1 - ssim(frame, warped)", REBUILT),
        ("jnp.exp(-edge *", "jnp.exp(edge *", SMOOTH),
        ("(away < relative * lengths + least)", "(away < relative * lengths + 2 * least)", SHOWN),
        ("+ least) & warping.inside(forward)", "+ least)", SHOWN),
        ("return forward + warping.warp(backward, forward)", "return forward - warping.warp(backward, forward)", SHOWN),
    ),
    *of(
        "cjepa_jax/objectives/flow.py",
        ("self._weight(name) * value", "value", SUMMED),
        ("total + self.content_weight * sum", "total + sum", SUMMED),
        ("back = jnp.roll(flow, len(flow) // 2, axis=0)", "back = flow", EXPLAINED),
        ('{"params": params["head"]}, one, other)\n', '{"params": params["head"]}, other, one)\n', EXPLAINED),
        ("one, other)[0], 2)", "other, one)[0], 2)", EXPLAINED),
        ("flow = warping.enlarge(flows[0], 2)", "flow = warping.enlarge(flows[0], 2) / 2", EXPLAINED),
        ("masked_mean(away, inside,", "masked_mean(away, seen,", f"{FLOW}{CYCLE}"),
        ("self.weights.get(name, WEIGHTS[name])", "self.weights.get(name, 1.0)", f"{FLOW}{DEFAULTS}"),
        ("jnp.concatenate([second, first])", "jnp.concatenate([second, second])", f"{FLOW}pairs_go_both_ways"),
        ("jnp.clip(rise, 0.0, 1.0)", "jnp.where(rise > 0, 1.0, 0.0)", f"{FLOW}the_motion_may_start_later"),
    ),
    *of(
        "cjepa_jax/objectives/factored.py",
        ("jnp.where(chosen, motion[0], content[0])", "jnp.where(chosen, content[0], motion[0])", TWO),
        ("(times.all(-1) == times.any(-1)).all(-1)", "times.all(-1).any(-1)", TWO),
    ),
    *of(
        "cjepa_jax/masks/factored.py",
        (
            "[: int(np.clip(round(times * count)",
            "[: int(np.clip(round(2 * times * count)",
            f"{FACTORED}masks_hide_whole_times_or_places_at_all_times",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/rigid.py",
        ("(new[..., 2] - old[..., 2])", "(old[..., 2] - new[..., 2])", TRUE_FLOW),
        ("old[..., 2]) * turns", "old[..., 2])", TRUE_FLOW),
        ("flow[t, owner[t] < 0] = 0", "pass", TRUE_FLOW),
        ("== owner[t][there]", ">= 0", TRUE_FLOW),
    ),
    *of(
        "cjepa_jax/evals/flow.py",
        ("moves & seen,", "moves,", f"{EPE}points_that_the_next_frame_hides_are_left_out"),
        (
            "key=lambda f: mean(fitting, f(fitting.frames), moving)",
            "key=lambda f: mean(testing, f(testing.frames), moving)",
            f"{EPE}dis_is_chosen_on_the_fitting_scenes",
        ),
        ("constant = fitting.flow[fitting.where[moving]].mean(0)", "constant = fitting.flow.mean((0, 1, 2))", ERRORS),
        ("axis=-1) >= least", "axis=-1) >= 0", ERRORS),
    ),
    *of(
        "cjepa_jax/objectives/dense.py",
        ("jax.lax.rsqrt(jnp.maximum(near, 1.0))", "1 / jnp.maximum(near, 1.0)", OUTPUTS),
        ("levels = full.reshape(*full.shape[:-1], -1, self._encoder.width)", "levels = full", OUTPUTS),
        ("losses.l1_tokens(visible, wanted)", "losses.l1_tokens(prediction, wanted)", OUTPUTS),
        ("(1.0 - self.images) * total", "total", IMAGES),
        ("jnp.clip(share, 0.0, 1.0)", "share", RAMP),
    ),
    *of(
        "cjepa_jax/objectives/act.py",
        (
            'if name != "encoder"}',
            'if name == "decoder"}',
            f"{ACT}kernels_start_by_their_inputs_but_those_of_the_encoder",
        ),
        ("real = (now < times - 1) &", "real = (now < times) &", TERMS),
        ("real = (now + 1 < times - (self.goal == LAST))", "real = (now + 1 < times)", TERMS),
        ("frames = _take(video, jnp.minimum(now + 1, times - 1))", "frames = _take(video, now)", TERMS),
        ('{"copy_error": _take(video, start[:, None])}', '{"copy_error": video[:, :1]}', TERMS),
        ('{"goal_error": video[:, -1:]}', '{"goal_error": video[:, -2:-1]}', TERMS),
        ("copied = distance(self._wanted(target, frame)", "copied = distance(self._tokens(target, frame)", TERMS),
        (
            "times - (self.goal == LAST)) & valid",
            "times - 1) & valid",
            f"{ACT}without_a_goal_the_last_frame_is_a_target_too",
        ),
        ("video[:, -1], own)", "video[:, -2], own)", ALONE),
        ("future = self._wanted(target, frames)", "future = self._wanted(params['encoder'], frames)", TERMS),
        (
            "layer_norm(self._tokens(target, frames))",
            "layer_norm(self._tokens(target, frames).swapaxes(2, 3)).swapaxes(2, 3)",
            TERMS,
        ),
        ("(1.0 - tau) * (new - old)", "tau * (new - old)", LEARNS),
        ('total = terms["action"] + self.latent_weight *', 'total = terms["action"] +', TERMS),
        ("jax.random.randint(key, (scenes,), 0, times - 1)", "jax.random.randint(key, (scenes,), 0, times)", STARTS),
        ("if self.goal == LAST else frames[:, None]", "if True else frames[:, None]", GOAL),
    ),
    *of(
        "cjepa_jax/models/queries.py",
        ('self.param("frames", NORMAL, (frames, 1, width))', 'self.param("frames", NORMAL, (1, 1, width))', GOAL),
    ),
    *of(
        "cjepa_jax/data/worlds/acting/base.py",
        ("self.expert(state, goal) + rng.normal", "0 * self.expert(state, goal) + rng.normal", DEMONSTRATED),
        ("drawn if self.policy == MIXED else self._behaviours.index(self.policy)", "drawn", DEMONSTRATED),
    ),
    *of(
        "cjepa_jax/evals/control.py",
        ("own))[:, : self.receding]", "own))", PLAYED),
        ("self.goals, own)", "self.world.seen(states, -1), own)", PLAYED),
    ),
    *of(
        "cjepa_jax/planning/players.py",
        ("if given != needed:", "if given < needed:", f"{CONTROL}a_trained_policy_of_another_world_is_refused"),
    ),
    *of(
        "cjepa_jax/objectives/thinking.py",
        ("jnp.where(batch.context, 1, 2).astype", "jnp.where(batch.context, 1, 1).astype", LEAK),
        ("            causal=True,\n", "            causal=False,\n", CAUSAL),
        ("jnp.where(seen, jnp.arange(times)[:, None], 0).max(1)", "0 * seen.max(1)", FLOOR),
        ("moments(copied, wanted, hidden", "moments(copied, wanted, ~hidden", FLOOR),
    ),
    *of(
        "cjepa_jax/models/guide.py",
        ("jnp.arange(times) * steps // times", "jnp.arange(times) % steps", RATES),
        ("known.mean(1, keepdims=True)", "known[:, :1]", RATES),
    ),
    *of(
        "cjepa_jax/data/sources/guided.py",
        ("self.frames * (s + 1) // self.steps - 1", "self.frames * s // self.steps", OUTCOME),
        ("found[i : i + 1][0]", "found[0:1][0]", BY_ROW),
        (".integers(1, len(self))", ".integers(0, len(self))", OUTCOME),
        ("if shape[0] < len(self) or", "if", UNFIT),
        (
            "cut = self.count and len(self) == self.count",
            "cut = True",
            f"{THINKS}more_rows_than_scenes_are_refused_where_none_was_left_out",
        ),
        ("return not self.embeddings", "return False", f"{THINKS}an_outcome_is_not_cropped"),
        ('"embedding_shape", shape[1:])', '"embedding_shape", shape[2:])', BY_ROW),
        ("shape[1] > MOST_STEPS or shape[1] * shape[2] > MOST", "shape[1] > MOST_STEPS", UNFIT),
        ('kind.kind != "f"', 'kind.kind == "u"', UNFIT),
        (
            "if not np.isfinite(row).all():",
            "if not np.isfinite(row).any():",
            f"{THINKS}numbers_that_are_not_finite_are_refused",
        ),
    ),
    *of(
        "cjepa_jax/masks/future.py",
        (
            "min(max(round(share * times), 1), times - 1)",
            "max(round(share * times), 1)",
            f"{THINKS}the_mask_hides_the_last_times",
        ),
    ),
    *of(
        "cjepa_jax/models/predictor.py",
        ("time = jnp.repeat(jnp.arange(grid[0]),", "time = jnp.repeat(0 * jnp.arange(grid[0]),", CAUSAL),
        ("condition=guide, time", "condition=None if guide is None else 0 * guide, time", GATE),
        ("x + (still if image else clip)", "x + (clip if image else still)", OUTPUTS),
        ("GELU[self.gelu](Dense(self.embed_units", "(Dense(self.embed_units", OUTPUTS),
    ),
    *of(
        "cjepa_jax/weights/levels.py",
        ("48: (11, 23, 37, 47)", "48: (11, 23, 35, 47)", f"{LEVELS}levels_of_the_published_depths"),
        ("depth * (i + 1) // count - 1", "depth * i // count", f"{LEVELS}all_levels_are_read_with_the_predictor"),
    ),
    *of(
        "cjepa_jax/weights/worlds.py",
        (
            "LEWM_HEAD = 64",
            "LEWM_HEAD = 32",
            f"{WORLDS}heads_that_do_not_divide_are_refused",
        ),
        (
            "array.reshape(array.shape[:2]).T) if",
            "array.reshape(array.shape[:2])) if",
            f"{WORLDS}a_run_starts_from_lewm",
        ),
        (
            '{theirs}.{name}") for name, leaf in',
            '{theirs}.net.1.running_var") for name, leaf in',
            f"{WORLDS}lewm_is_read_under_both_namings",
        ),
    ),
    *of(
        "cjepa_jax/weights/points.py",
        (
            '"running_mean": "mean"',
            '"running_var": "mean"',
            f"{PUBLISHED_POINTS}it_is_read_as_the_golden_test_lays_it_out",
        ),
        (
            "weight.reshape(weight.shape[:2]).T)",
            "weight.reshape(weight.shape[:2]))",
            f"{PUBLISHED_POINTS}a_run_starts_from_it",
        ),
        (
            '"teacher.ema_model": "target"',
            '"teacher.ema_model": "encoder.trunk"',
            f"{PUBLISHED_POINTS}a_run_starts_from_it",
        ),
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

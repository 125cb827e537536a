"""Mutants of object slots."""

from tests.mutants.mutant import of, tests_of

(PREDICTOR,) = tests_of("models/", "slot_predictor")
(OBJECTIVE,) = tests_of("objectives/", "slots")
(MASK,) = tests_of("masks/", "slots")
(ROLLOUT,) = tests_of("evals/", "rollout")
(TRUE,) = tests_of("data/sources/", "true_slots")
(KINDS,) = tests_of("data/", "kinds")
(CTT,) = tests_of("objectives/", "ctt")
(INFLUENCE,) = tests_of("evals/", "influence")
(DAGMA,) = tests_of("objectives/", "dagma")
EFFECT = f"{CTT}the_effect_of_masking_is_that_of_the_public_code_and_dropping_leaves_nothing_of_a_slot"
AREA = (
    f"{INFLUENCE}area_and_precision_are_those_of_their_definitions_with_ties_and_the_interval_that_of_resampled_scenes"
)
(ENCODERS,) = tests_of("models/", "slot_encoders")
(SAVI_LOSS,) = tests_of("objectives/", "savi")
(FILES,) = tests_of("data/sources/", "slot_files")
SAVI = f"{ENCODERS}savi_is_the_published_one_in_slots_pictures_losses_and_gradients"
TRANSPOSED = f"{ENCODERS}a_transposed_convolution_is_that_of_an_image_with_zeros_between_its_pixels"
VIDEOSAUR = f"{ENCODERS}videosaur_is_the_public_one_in_slots_features_losses_and_gradients"
HOSTILE = f"{FILES}pickles_that_hold_anything_else_are_refused_in_one_line_and_never_run"
WINDOWS = f"{FILES}windows_are_the_published_ones_with_their_actions"
SAME = f"{PREDICTOR}outputs_are_those_of_the_published_code"

(ALOE,) = tests_of("models/", "aloe")
(ASKED,) = tests_of("evals/benchmarks/", "aloe")
(WORDS,) = tests_of("data/", "vocabulary")
(CLEVRER,) = tests_of("data/sources/", "clevrer_slots")
LOGITS = f"{ALOE}logits_losses_and_every_gradient_are_those_of_the_published_code"
RATE = f"{ALOE}the_rate_warms_up_for_a_tenth_and_ends_at_a_hundredth"
DO = f"{ASKED}a_do_rollout_knows_the_first_frames_without_the_object_and_nothing_else"
REACHED = f"{ASKED}rollouts_reach_the_questions_that_are_rolled_and_no_others"
SIMULATED = f"{ASKED}the_simulated_clip_is_that_of_the_world_without_the_object_and_its_true_continuation"
BATCHES = f"{ASKED}batches_hold_open_questions_and_options_in_their_shares_and_every_frame_is_reached"
PLANTED = f"{ASKED}it_reads_answers_from_the_slots_and_none_from_the_words_and_gives_the_same_numbers_twice"

(SEGMENTS,) = tests_of("evals/", "segments")
(PARTS,) = tests_of("evals/", "parts")
(SAUR,) = tests_of("objectives/", "videosaur")
TERMS = f"{SAUR}the_loss_is_the_weighted_sum_of_its_terms_over_valid_scenes_and_slices_add_up"
INDEX = f"{SEGMENTS}the_index_is_the_definitions_by_hand"

SLOTS = (
    *of(
        "cjepa_jax/evals/base.py",
        (
            "bench.lengths.get(name, value)",
            "value",
            f"{ASKED}rollouts_of_other_lengths_than_the_run_s_are_refused",
        ),
    ),
    *of(
        "cjepa_jax/evals/parts.py",
        (
            "json.dumps([self.setting, key], sort_keys=True)",
            "json.dumps([key], sort_keys=True)",
            f"{PARTS}a_part_is_read_again_under_the_same_setting_and_key_and_no_other",
        ),
        (
            'found.get("sha256") != self._mark(key, found.get("value"))',
            "False",
            f"{PARTS}a_part_is_read_again_under_the_same_setting_and_key_and_no_other",
        ),
    ),
    *of(
        "cjepa_jax/evals/segments.py",
        ("counts(truth[truth >= 0], found[truth >= 0])", "counts(truth, found)", INDEX),
        ("expected = one * other / total", "expected = 0 * one * other / total", INDEX),
        (
            "(table / union).max(1)[rows]",
            "(table / union).max(1)",
            f"{SEGMENTS}the_best_overlap_counts_the_background_in_a_segment",
        ),
        (
            "columns = (count + np.arange(rows)) // rows",
            "columns = (count + 0 * np.arange(rows)) // rows",
            f"{SEGMENTS}a_grid_has_rectangles_of_equal_area_as_many_as_there_are_slots",
        ),
        (
            "np.broadcast_to(np.stack([y, x], -1) * place",
            "np.broadcast_to(np.stack([y, x], -1) * 0",
            f"{SEGMENTS}colours_are_clustered_with_their_place_and_the_best_start_counts",
        ),
        (
            "if squares < least:",
            "if True:",
            f"{SEGMENTS}colours_are_clustered_with_their_place_and_the_best_start_counts",
        ),
        (
            "masks.shape[1:] == shape",
            "True",
            f"{SEGMENTS}scenes_of_other_sizes_and_without_masks_are_refused_and_scenes_without_objects_are_not",
        ),
    ),
    *of(
        "cjepa_jax/objectives/videosaur.py",
        ("getattr(self, name) * value for", "value for", TERMS),
        ("self.contrast_temperature, valid=valid)", "self.contrast_temperature)", TERMS),
        ("self.texture * (cut - mean)", "(cut - mean)", f"{SAUR}features_are_the_colour_and_the_texture_of_each_patch"),
        (
            "[2 * mean[..., 0, :], texture]",
            "[2 * mean[..., 0, :], 0 * texture]",
            f"{SAUR}features_are_the_colour_and_the_texture_of_each_patch",
        ),
        (
            "labels.repeat(self.patch, 2).repeat(self.patch, 3)",
            "jnp.tile(labels, (1, 1, self.patch, self.patch))",
            f"{SAUR}every_pixel_has_the_slot_of_its_patch_and_drawn_slots_are_the_same_each_time",
        ),
    ),
    *of(
        "cjepa_jax/models/aloe.py",
        (
            "(self._drop(y, train))",
            "(y)",
            f"{ALOE}dropout_acts_on_attention_weights_its_output_and_both_layers_of_the_mlp",
        ),
        ("y = nn.relu(Dense(self.units", "y = (Dense(self.units", LOGITS),
        ("TEXT, VISION = (1.0, 0.0), (0.0, 1.0)", "VISION, TEXT = (1.0, 0.0), (0.0, 1.0)", LOGITS),
        ("jnp.where(choice[:, None, None], kind", "jnp.where(~choice[:, None, None], kind", LOGITS),
        ("shown, words > 0]", "shown, words >= 0]", LOGITS),
        (
            "if seen is None else jnp.broadcast_to(seen[:, None], vision.shape[:2])",
            "",
            f"{ALOE}padding_and_slots_that_are_not_seen_have_no_influence_and_rows_are_independent",
        ),
    ),
    *of(
        "cjepa_jax/weights/aloe.py",
        (
            "if not np.array_equal(arrays[name]",
            "if np.array_equal(arrays[name]",
            f"{ALOE}a_missing_or_foreign_array_is_named_in_one_line",
        ),
    ),
    *of(
        "cjepa_jax/objectives/aloe.py",
        ("losses.masked_mean(of_open, ~choice)", "0 * losses.masked_mean(of_open, ~choice)", PLANTED),
        ("+ losses.masked_mean(of_option, choice)", "", PLANTED),
        ("WARM, LAST = 0.1, 0.01", "WARM, LAST = 0.05, 0.01", RATE),
        ("done % CHECKED == 0 or ", "", f"{ASKED}a_loss_that_is_not_finite_ends_the_training_early"),
        ("LAST * reader.rate)", "0.0)", RATE),
        (
            "batch.seen, key is not None",
            "batch.seen, False",
            f"{ALOE}the_training_s_loss_is_the_published_one_of_a_mixed_batch_and_dropout_needs_a_key",
        ),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/asked.py",
        (
            "np.bincount(place, np.log(one))",
            "0 * np.bincount(place, np.log(one))",
            f"{ASKED}chance_is_the_share_of_one_answer_and_of_all_options_of_a_question",
        ),
        (
            "np.bincount(place, ~right) == 0",
            "np.bincount(place, right) > 0",
            f"{ASKED}options_and_questions_are_counted_apart",
        ),
        (
            "for part in parts), protocol, missing)",
            "for part in [{'answer'}]), protocol, missing)",
            f"{ASKED}questions_of_another_file_are_refused_in_one_line",
        ),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/vision.py",
        ("& (np.arange(clips.shape[2]) != slot[:, None])", "", DO),
        ("clips[scene][:, : self.plan.given], 0)", "clips[scene][:, -self.plan.given :], 0)", DO),
        ("clips[part, self.rollout :]", "clips[part, : -self.rollout]", REACHED),
        ("[clips.shape[1] :, 0]", "[: self.plan.rollout, 0]", SIMULATED),
        (".tobytes() == ", ".tobytes() != ", REACHED),
        (
            "self.more[row[where, None] - count, frames[where]]",
            "self.more[row[where, None] - count, frames[where] * 0]",
            DO,
        ),
        ("np.isin(items.kind, self.rolled)", "np.full(len(items.kind), True)", REACHED),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/aloe.py",
        ("judged == (batch.answer == 1)", "judged", PLANTED),
        ("_replace(seen=False)", "_replace(seen=True)", PLANTED),
        ("self.frames - (self.moments - 1) * self.every", "1", BATCHES),
        ("/ questions)) if", "/ len(text.choice))) if", BATCHES),
        (
            "None if found is None else {metric",
            "None if True else {metric",
            f"{ASKED}a_protocol_that_was_stopped_resumes_with_the_next_training",
        ),
        (
            "float(np.hypot(among, scenes))",
            "float(among)",
            f"{ASKED}the_interval_has_the_spread_of_trainings_and_of_scenes",
        ),
    ),
    *of(
        "cjepa_jax/data/vocabulary.py",
        (
            "enumerate(self.words, 1)",
            "enumerate(self.words)",
            f"{WORDS}the_numbers_are_those_of_the_published_vocabulary",
        ),
        (
            "if len(words) > length:",
            "if len(words) > length + 9:",
            f"{WORDS}unknown_words_are_left_out_and_counted_and_long_texts_are_refused",
        ),
    ),
    *of(
        "cjepa_jax/data/sources/clevrer_slots.py",
        (
            "self.numbers[self.video_of(i)]",
            "self.numbers[0]",
            f"{CLEVRER}every_window_has_the_questions_about_its_video",
        ),
        (
            "if match is None:",
            "if match is None and False:",
            f"{CLEVRER}what_does_not_fit_is_refused_in_one_line",
        ),
    ),
    *of(
        "cjepa_jax/models/slot_predictor.py",
        ("if self.norm_attention else x", "if not self.norm_attention else x", SAME),
        ("positions[-frames:, None]", "positions[:frames, None]", SAME),
        ("mask_token + anchor)", "mask_token)", SAME),
        ("EPSILON = 1e-5", "EPSILON = 1e-3", SAME),
        (
            "jnp.where(present[:, None, None], logits",
            "jnp.where(present[:, None, :, None], logits",
            f"{PREDICTOR}hidden_and_absent_slots_have_no_influence_and_order_does_not_matter",
        ),
        (
            "deterministic=not train)",
            "deterministic=True)",
            f"{PREDICTOR}dropout_acts_in_training_only_and_wrong_sizes_are_refused",
        ),
    ),
    *of(
        "cjepa_jax/objectives/slots.py",
        ("hidden & before & own", "hidden & own", f"{OBJECTIVE}each_term_is_a_mean_over_its_own_tokens"),
        ("present & ~before & own", "~before & own", f"{OBJECTIVE}each_term_is_a_mean_over_its_own_tokens"),
        (
            "jnp.arange(shape[1])[:, None] < self.history, more)",
            "jnp.arange(shape[1])[:, None] >= 0, more)",
            f"{OBJECTIVE}auxiliary_tokens_are_seen_in_the_history_only",
        ),
        (
            "present = covered | ~covered.any(-1, keepdims=True)",
            "present = covered | True",
            f"{OBJECTIVE}absent_slots_and_padded_scenes_do_not_count",
        ),
    ),
    *of(
        "cjepa_jax/masks/slots.py",
        (
            "(time > 0) & (time < history)",
            "(time < history)",
            f"{MASK}the_first_frame_is_visible_the_future_hidden_and_what_is_not_there_neither",
        ),
        (
            "rng.integers(least, most + 1)",
            "rng.integers(least, most)",
            f"{MASK}the_number_of_objects_is_uniform_and_never_more_than_there_are",
        ),
        (
            "_fixed(constant, slots, min",
            "_fixed(constant, len(valid), min",
            f"{PREDICTOR}the_published_mask_indices",
        ),
    ),
    *of(
        "cjepa_jax/weights/slots.py",
        ("return np.ascontiguousarray(array.T)", "return array", SAME),
        (
            'if "norm1" in predictor',
            'if "none" in predictor',
            f"{PREDICTOR}the_published_size_has_the_published_number_of_parameters",
        ),
    ),
    *of(
        "cjepa_jax/evals/rollout.py",
        ("[:, -history:]", "[:, :history]", f"{ROLLOUT}the_published_rollouts"),
        ("tail[:, offset::skip]", "tail[:, ::skip]", f"{ROLLOUT}the_published_rollouts"),
        (
            "steps * (given[:, -1:] - given[:, -2:-1])",
            "given[:, -1:] - given[:, -2:-1]",
            f"{ROLLOUT}who_knows_the_future_makes_no_error_and_the_floors_are_what_they_say",
        ),
        (
            "residual = (total - mean * weight)",
            "residual = (total)",
            f"{ROLLOUT}the_interval_is_that_of_resampled_scenes",
        ),
    ),
    *of(
        "cjepa_jax/objectives/dagma.py",
        ("SPARSITY = 0.03", "SPARSITY = 0.2", f"{DAGMA}the_weights_are_those_of_the_public_solver"),
        ("+ 2 * w * inverse.T", "+ 2 * w * inverse", f"{DAGMA}the_weights_are_those_of_the_public_solver"),
        (".swapaxes(-1, -2)", "", f"{DAGMA}the_weight_of_j_for_i_is_at_row_i"),
        (
            "x - x.mean(1, keepdims=True)",
            "x - x.mean()",
            f"{DAGMA}slots_that_change_together_are_joined_and_no_others_and_there_is_no_cycle",
        ),
    ),
    *of(
        "cjepa_jax/objectives/graphs.py",
        (
            "[:, history].mean(2)",
            "[:, history].sum(2)",
            f"{CTT}the_published_graph_and_both_losses_are_those_of_the_public_code",
        ),
        ("& (jnp.arange(visible.shape[1]) > 0)", "& (jnp.arange(visible.shape[1]) >= 0)", EFFECT),
        ("present & ~which", "present", EFFECT),
        (
            "shares / jnp.maximum(shares.sum(-1",
            "shares / jnp.maximum(shares.sum(-2",
            f"{CTT}shares_of_attention_add_up_to_nothing_and_are_even_for_even_weights",
        ),
    ),
    *of(
        "cjepa_jax/objectives/ctt.py",
        (
            "jnp.square(without - jax.lax.stop_gradient(clean))",
            "jnp.square(without - clean)",
            f"{CTT}the_published_graph_and_both_losses_are_those_of_the_public_code",
        ),
        ("turn % jnp.maximum(among.sum(1), 1)", "turn", f"{CTT}objects_take_turns"),
        (
            "others = seen & ~j & ~jnp.einsum",
            "others = seen & ~j & jnp.einsum",
            f"{CTT}invariance_is_over_objects_that_do_not_depend_on_the_other_and_the_true_graph_says_which",
        ),
        (
            "batch.epoch >= self.start_epoch",
            "batch.epoch >= 0",
            f"{CTT}before_its_epoch_no_term_is_added",
        ),
        (
            "clean[:, history + half :]",
            "clean[:, history : history + self.future - half]",
            f"{CTT}two_steps_that_agree_with_one_are_consistent",
        ),
        (
            "jnp.where(found.visible[..., None], found.tokens, clean)",
            "jnp.where(past[..., None], found.tokens, clean)",
            f"{CTT}the_second_step_is_not_given_what_the_first_one_did_not_see",
        ),
        (
            'if self.graph != "gates" and not self.slot_predictor',
            "if not self.slot_predictor",
            f"{CTT}taking_nothing_away_changes_nothing_with_gates_that_are_drawn",
        ),
        (
            "(difference > SAME) & ~batch.removed",
            "(difference > SAME) | batch.removed",
            f"{CTT}what_the_simulation_changes_depends_on_what_was_removed",
        ),
    ),
    *of(
        "cjepa_jax/evals/influence.py",
        ("np.clip(-(gap * step).sum(-1)", "np.clip((gap * step).sum(-1)", f"{INFLUENCE}geometry_by_hand"),
        ("0, future)", "0, np.inf)", f"{INFLUENCE}geometry_by_hand"),
        ("(low + high) / (2 * len(those))", "high / len(those)", AREA),
        ("append(np.flatnonzero(np.diff(scores[order]))", "append(np.arange(len(scores) - 1)", AREA),
        ("_precision(ranked * weight, weight, last)", "_precision(ranked, weight, last)", AREA),
        (
            "less > width",
            "less > 0 * width - 2",
            f"{INFLUENCE}who_knows_the_effects_is_perfect_and_who_says_the_opposite_does_not_beat_geometry",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/rigid.py",
        (
            "effects[:, k] = ",
            "effects[k] = ",
            f"{INFLUENCE}effects_from_the_first_frame_are_those_of_the_simulation_without_the_object",
        ),
    ),
    *of(
        "cjepa_jax/models/slot_encoders.py",
        ("nn.relu(convolution(x))\n        x = self.out", "convolution(x)\n        x = self.out", SAVI),
        ("self.count))[:, ::-1, :, ::-1]", "self.count))", TRANSPOSED),
        ("before = stride - 3 - stride * first", "before = 0", TRANSPOSED),
        ("jnp.exp(log_variance / 2)", "jnp.exp(log_variance)", SAVI),
        ("return slots, normed + self.next_down", "return slots, slots + self.next_down", SAVI),
        ("normed if self.normed else slots", "slots", VIDEOSAUR),
    ),
    *of(
        "cjepa_jax/models/videosaur.py",
        ("q.shape[-1] ** 0.5)", "q.shape[-1] ** -0.5)", VIDEOSAUR),
        ("shares, slots) + positions", "shares, memory) + positions", VIDEOSAUR),
        ("self.iterations if t else self.first", "self.iterations", VIDEOSAUR),
        ("kept = cosine > 0", "kept = cosine > -2", VIDEOSAUR),
        (
            "        x = x + position.apply(",
            "        x = x - position.apply(",
            f"{ENCODERS}places_tell_slots_of_equal_features_where_they_are_frame_by_frame_too",
        ),
        (
            'logits = jnp.einsum("btks,btls->btkl", unit[:, 1:], unit[:, :-1])',
            'logits = jnp.einsum("btks,btls->btkl", unit[:, :-1], unit[:, 1:])',
            f"{ENCODERS}slots_are_contrasted_with_those_of_the_frame_before",
        ),
    ),
    *of(
        "cjepa_jax/weights/slot_encoders.py",
        (
            "if name not in names:",
            "if name in params:",
            f"{ENCODERS}weights_come_back_to_the_bit_and_a_missing_or_foreign_array_is_named",
        ),
        ("[::-1, ::-1]\n    elif", "\n    elif", SAVI),
    ),
    *of(
        "cjepa_jax/objectives/savi.py",
        (
            "PRIOR - 1).sum(-1)",
            "PRIOR - 1).mean(-1)",
            f"{SAVI_LOSS}the_divergence_is_that_of_two_normal_distributions",
        ),
        ("cut.mean((4, 6))", "cut.max((4, 6))", f"{SAVI_LOSS}a_token_has_the_slots_that_paint_it"),
    ),
    *of(
        "cjepa_jax/data/formats/array_pickle.py",
        ('kind.order not in ("<", "|")', 'kind.order not in ("<", "|", ">")', HOSTILE),
        ("if version != 1 or fortran is not False:", "if version != 1:", HOSTILE),
        ("data.data = None  # the", "# the", f"{FILES}the_memory_is_that_of_few_arrays"),
    ),
    *of(
        "cjepa_jax/data/sources/slot_files.py",
        ("(length - self.skip * self.frames)", "(length - self.frames)", WINDOWS),
        ('if name == "actions" else every', "if not name else every", WINDOWS),
        ("places - self.before[videos]", "places", WINDOWS),
        ("np.isfinite(array.max())", "True", f"{FILES}one_damaged_window_of_a_batch_is_replaced_and_the_others_stay"),
        ("type(value) is int", "isinstance(value, int)", f"{FILES}the_sizes_of_an_index_are_not_trusted"),
        (
            "len(self._array(other)) != rows",
            "len(self._array(other)) < 0",
            f"{FILES}arrays_of_the_agent_have_the_frames_of_the_slots_and_numbers_that_are_finite",
        ),
        ('searchsorted(self.before, self._window(i), "right")', 'searchsorted(self.before, i, "right")', WINDOWS),
        ("i * int(self.before[-1]) // len(self)", "i", WINDOWS),
    ),
    *of(
        "cjepa_jax/data/sources/true_slots.py",
        (
            "2.0 * same[1] - 1",
            "2.0 * same[0] - 1",
            f"{TRUE}classes_become_components_of_about_unit_variance",
        ),
        (
            'HIDDEN = ("present", "velocity"',
            'HIDDEN = ("present"',
            f"{TRUE}slots_hold_what_a_frame_shows_of_each_object_and_nothing_else",
        ),
        ("groups[one] |= groups[other]", "pass", f"{TRUE}noise_and_merged_slots"),
        (
            '["states"][self._window(i)]\n        return',
            '["states"][: self.frames]\n        return',
            f"{TRUE}a_window_of_a_scene_begins_anywhere_and_everything_but_the_graph_is_of_its_frames",
        ),
        (
            "int(slot[k]) if k >= 0 and alone[slot[k]]",
            "k if k >= 0 and alone[slot[k]]",
            f"{ASKED}slots_name_the_objects_of_the_questions_that_they_hold",
        ),
        (
            "holds[0][removed].any(0)",
            "holds[0][~removed].any(0)",
            f"{TRUE}do_remove_simulates_without_the_objects_of_the_slots",
        ),
    ),
    *of(
        "cjepa_jax/data/kinds/slots.py",
        (
            "& present[:, None, None, None]",
            "& True",
            f"{KINDS}a_batch_of_slots_has_identity_masks_without_the_empty_slots",
        ),
    ),
)

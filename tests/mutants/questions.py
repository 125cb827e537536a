"""Mutants of counterfactual questions, of questions in words, and of what every protocol shares."""

from tests.mutants.mutant import of, tests_of

DO, STATES, CRAFT, PHYRE = tests_of("evals/", "interventional", "states", "benchmarks/craft", "benchmarks/phyre")
CONTRAST, EFFECTS = tests_of("evals/counterfactual/", "contrast", "effects")
BASE, PROBE, ANSWERS, WORDS = tests_of("evals/", "base", "probe", "benchmarks/language_head", "benchmarks/words")
COLLAPSE = tests_of("evals/", "collapse")[0]
READOUTS = f"{DO}readouts_are_means_over_the_tokens_that_they_name"

QUESTIONS = (
    *of(
        "cjepa_jax/evals/counterfactual/contrast.py",
        (
            "scale**2 * predicted - 2 * scale * inner + true",
            "scale * predicted - 2 * scale * inner + true",
            f"{CONTRAST}r2_is_the_formula_over_chosen_tokens",
        ),
        (
            "sums.inner.sum() / predicted",
            "sums.true.sum() / predicted",
            f"{CONTRAST}the_best_scale_is_that_of_least_squares",
        ),
        (
            "np.where(inner == 0, 0.5, inner > 0)",
            "inner >= 0",
            f"{CONTRAST}ties_count_a_half_and_the_rest_by_their_sign",
        ),
    ),
    *of(
        "cjepa_jax/evals/counterfactual/foresee.py",
        ("[-of.change for of in seen", "[of.change for of in seen", f"{EFFECTS}who_knows_gets_1_of_everything"),
        (
            "(part.video, part.without_third)]",
            "(part.video, part.without)]",
            f"{EFFECTS}the_decoder_sees_no_scene_without_k_or_o_and_chooses_by_the_third",
        ),
    ),
    *of(
        "cjepa_jax/evals/counterfactual/pairs.py",
        (
            "others = np.where(gone, np.inf, reached)",
            "others = reached",
            f"{EFFECTS}pairs_are_two_eligible_objects_and_their_removals",
        ),
    ),
    *of(
        "cjepa_jax/evals/counterfactual/readouts.py",
        ("expected = base() - seen.change", "expected = base() + seen.change", READOUTS),
        (
            "_joined(pool(seen.prediction, gone), pool(seen.context, own))",
            "_joined(pool(seen.prediction, ~gone), pool(seen.context, own))",
            READOUTS,
        ),
        (
            "_joined(pool(seen.context, ~gone), pool(seen.context, own))",
            "_joined(seen.context.mean(1), pool(seen.context, own))",
            READOUTS,
        ),
        ("full if model.target is None else model.target(part.video)", "model.encode(part.video)", READOUTS),
        ("alone = tokens & ~_touched(asked, row)", "alone = tokens", READOUTS),
        (
            "~hidden(_touched(asked, row), times, anchor), asked.object_patches",
            "~hidden(_touched(asked, row), times, 0), asked.object_patches",
            f"{DO}an_anchor_leaves_the_beginning_visible",
        ),
        (
            "rest = ~_touched(asked, asked.removed)",
            "rest = ~_touched(asked, asked.asked)",
            f"{DO}response_is_the_change_of_untouched_tokens_over_the_variance",
        ),
        (
            "variance = (squares / count - np.square(total / count))",
            "variance = (squares / count)",
            f"{DO}response_is_the_change_of_untouched_tokens_over_the_variance",
        ),
        (
            "squares - 2 * sums @ mean + tokens * (mean @ mean)",
            "squares",
            f"{DO}response_by_batches_is_that_of_all_at_once",
        ),
    ),
    *of(
        "cjepa_jax/evals/counterfactual/questions.py",
        (">= anchor * (patches.shape[-1] // times)", ">= anchor", f"{DO}tokens_that_cover_the_scene_hide_nothing"),
        ("return gone & ~gone.all(-1, keepdims=True)", "return gone", f"{DO}tokens_that_cover_the_scene_hide_nothing"),
    ),
    *of(
        "cjepa_jax/evals/counterfactual/judge.py",
        (
            "(scores[:, 1] > scores[:, 0]) == self.test.answer",
            "(scores[:, 1] > scores[:, 0])",
            f"{DO}the_mlp_answers_what_is_no_sum_of_features",
        ),
        (
            "test.factual == test.answer)",
            "test.answer == test.answer)",
            f"{DO}who_is_blind_gets_half_and_beside_it_stand_floors_and_ceilings",
        ),
        (
            "error.sum(-2) / np.maximum(spread.sum(-2), 1e-12)",
            "error.mean(-2) / np.maximum(spread.sum(-2), 1e-12)",
            f"{DO}the_explained_share_by_hand",
        ),
    ),
    *of(
        "cjepa_jax/evals/base.py",
        (
            "weights = where / np.maximum(where.sum(-1, keepdims=True), 1)",
            "weights = where / where.shape[-1]",
            READOUTS,
        ),
        (
            "np.sqrt(max(share * (1 - share), 0.0) / max(count, 1))",
            "np.sqrt(max(share * (1 - share), 0.0))",
            "tests/evals/test_base.py",
        ),
        ("values.std(ddof=1) / np.sqrt(len(values))", "values.std(ddof=1)", "tests/evals/test_base.py"),
        ("special.stdtrit(count - 1, 0.975)", "special.stdtrit(count, 0.975)", "tests/evals/test_base.py"),
        (
            "found = pipeline.held_out(scenes, 0, count or len(source))",
            "found = pipeline.held_out(scenes, 0, count)",
            f"{COLLAPSE}of_a_split_with_fewer_scenes_all_are_taken",
        ),
    ),
    *of(
        "cjepa_jax/evals/states.py",
        (
            "self.frame, self.time = frames // 2, frames // 2 * times // frames",
            "self.frame, self.time = 0, 0",
            f"{STATES}objects_are_pooled_over_their_patches_at_the_middle",
        ),
        ("(truth - mean) ** 2", "(truth - truth.mean(0)) ** 2", f"{STATES}labels_of_scenes_are_those_of_ridge"),
        (
            "draws[:, row_scene]",
            "draws[:, np.arange(len(row_scene)) % len(scenes)]",
            f"{STATES}intervals_are_over_scenes_not_over_their_rows",
        ),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/craft.py",
        (
            "hidden = (patches & removed[:, :, None]).any(1)",
            "hidden = patches.any(1)",
            f"{CRAFT}the_removed_objects_tokens_are_hidden_and_predicted",
        ),
        (
            "parts.append(pool(seen.prediction, hidden))",
            "parts.append(pool(seen.prediction, ~hidden))",
            f"{CRAFT}the_removed_objects_tokens_are_hidden_and_predicted",
        ),
        (
            'removed = arrays["objects"][row] == number[:, None]',
            'removed = np.arange(arrays["objects"].shape[1]) == number[:, None]',
            f"{CRAFT}the_removed_objects_tokens_are_hidden_and_predicted",
        ),
        (
            "np.concatenate(out)[place.reshape(-1)]",
            "np.concatenate(out)[np.sort(place.reshape(-1))]",
            f"{CRAFT}the_removed_objects_tokens_are_hidden_and_predicted",
        ),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/phyre.py",
        (
            "half = min(count // 2, *(len(side) for side in sides))",
            "half = count // 2",
            f"{PHYRE}a_task_gives_as_many_solving_as_failing_actions",
        ),
        (
            "side - int(y * (side - 1))",
            "int(y * (side - 1))",
            f"{PHYRE}balls_are_discs_of_their_size_at_their_place_rows_upwards",
        ),
        ("round(2 + 30 * r)", "round(32 * r)", f"{PHYRE}balls_are_discs_of_their_size_at_their_place_rows_upwards"),
        ("np.triu_indices(actions.shape[1])", "np.triu_indices(actions.shape[1], 1)", f"{PHYRE}an_action_s_products"),
        (
            '[np.argsort(-each, kind="stable") for each',
            '[np.argsort(each, kind="stable") for each',
            f"{PHYRE}the_highest_score_is_tried_first",
        ),
        (
            "scores.insert(1, over_inits",
            "scores.append(over_inits",
            f"{PHYRE}a_row_is_its_tasks_mean_and_random_initialisations_follow_the_model",
        ),
    ),
    *of(
        "cjepa_jax/evals/probe.py",
        (
            "(difference * rest).sum(1) / np.maximum(rest.sum(1), 1)",
            "difference.mean(1)",
            f"{PROBE}response_is_the_mean_change_of_context_tokens_over_the_feature_variance",
        ),
        (
            "variance = float((square / count - np.square(total / count)).sum(-1).mean())",
            "variance = float((square / count).sum(-1).mean())",
            f"{PROBE}response_is_the_mean_change_of_context_tokens_over_the_feature_variance",
        ),
        ("x -= x[:train].mean(0)", "x -= x.mean(0)", f"{PROBE}pixel_components_are_those_of_the_svd"),
        (
            "(vectors[:, keep] / np.sqrt(values[keep]))",
            "vectors[:, keep]",
            f"{PROBE}pixel_components_are_those_of_the_svd",
        ),
        ("np.mean(scores[i])", "np.max(scores[i])", f"{PROBE}groups_are_means_over_their_targets"),
        ("own == g and varies[i]", "own == g", f"{PROBE}a_target_that_is_the_same_in_all_scenes_has_no_score"),
        (
            "len(held_out) * train // (train + test)",
            "train",
            f"{PROBE}batches_do_not_matter_and_a_small_source_is_split_in_proportion",
        ),
        (
            "test = jnp.asarray(features.pooled[self._train :])",
            "test = jnp.asarray(features.pooled)",
            f"{PROBE}the_rank_is_of_the_test_scenes_alone",
        ),
        (
            "max_objects=3, area=(0.05, 0.40), anchor=0)",
            "max_objects=1, area=(0.05, 0.40), anchor=0)",
            f"{PROBE}response_is_the_mean_change_of_context_tokens_over_the_feature_variance",
        ),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/language_head.py",
        (
            "len(sums) / (len(sums) - 1)",
            "1.0",
            f"{ANSWERS}the_interval_is_that_of_the_scenes_means_where_all_have_as_many_questions",
        ),
        (
            "return float(means.mean()), float(1.96",
            "return float(right.mean()), float(1.96",
            f"{ANSWERS}groups_weigh_the_same_however_many_questions_they_have",
        ),
        (
            "values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]",
            "values, vectors = values[keep], vectors[:, keep]",
            f"{ANSWERS}main_components_are_those_of_the_standardised_features",
        ),
        (
            "self._answers[scores.argmax(1)] == self._truth",
            "self._answers[scores.argmin(1)] == self._truth",
            f"{ANSWERS}only_products_let_a_linear_answer_depend_on_what_is_asked",
        ),
        (
            "part.mean((1, 2)) for part in np.array_split(tokens, min(parts, times), 1)",
            "tokens.mean((1, 2)) for part in np.array_split(tokens, min(parts, times), 1)",
            f"{ANSWERS}stretches_of_time_are_averaged_apart",
        ),
        ("names[counts.argmax()]", "names[0]", f"{ANSWERS}the_most_frequent_answer_is_that_of_the_type"),
        (
            "np.nonzero(objects[row] == number)",
            "np.nonzero(np.arange(objects.shape[1]) == number)",
            f"{ANSWERS}states_of_named_objects_come_first_then_all_in_the_sources_order",
        ),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/words.py",
        (
            "if count >= least",
            "if count > least",
            f"{WORDS}the_vocabulary_is_that_of_the_fitting_texts_whatever_their_order",
        ),
        (
            "zip(words, words[1:], strict=False)",
            "zip(words[1:], words, strict=False)",
            f"{WORDS}words_and_neighbouring_pairs_are_counted_in_order",
        ),
    ),
    *of(
        "cjepa_jax/evals/stats.py",
        (
            "(0.025, 0.975)",
            "(0.05, 0.95)",
            f"{BASE}the_bootstrap_of_a_mean_is_1_96_standard_errors_wide_on_either_side",
        ),
        (
            "return float(high - low) / 2",
            "return float(high - low)",
            f"{BASE}the_bootstrap_of_a_mean_is_1_96_standard_errors_wide_on_either_side",
        ),
    ),
)

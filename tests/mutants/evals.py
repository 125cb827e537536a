"""Mutants of what scores a model."""

from tests.mutants.mutant import of, tests_of

AUCCESS, RIDGE, HEADS, COPHY = tests_of("evals/", "benchmarks/auccess", "ridge", "heads", "benchmarks/cophy")
(GRAPHS,) = tests_of("evals/", "patch_graphs")
SURPRISE, CLASSIFY, COLLAPSE, FINETUNE = tests_of("evals/", "surprise", "classify", "collapse", "finetune")

TOKENS = f"{GRAPHS}the_graphs_are_means_over_an_objects_tokens_that_the_other_does_not_touch"
BY_HAND = "tests/models/test_inside.py::test_attention_of_groups_is_that_of_the_softmax_by_hand"
DEPTH = "tests/evals/test_tokens.py::test_depth_order_is_of_objects_that_meet"
EVALS = (
    *of(
        "cjepa_jax/evals/tokens.py",
        ("((places[:, 0] + 0.5) * states.shape[1] / grid[0]).astype(int)", "0", DEPTH),
        ("drawn.meet[scene, time, a, b]", "drawn.meet[scene].any(0)[a, b]", DEPTH),
    ),
    *of(
        "cjepa_jax/evals/patch_graphs.py",
        ("object_patches & ~gone[:, None]", "object_patches", TOKENS),
        ("graph[:, :, j] =", "graph[:, j] =", TOKENS),
        (
            "weights[:, -1]",
            "weights[:, 0]",
            f"{GRAPHS}attention_alone_is_enough_and_a_model_without_anything_is_refused",
        ),
    ),
    *of(
        "cjepa_jax/models/inside.py",
        ("bin,bnm,bjm->bij", "bim,bnm,bjn->bij", BY_HAND),
        (".mean(1), share)", ".max(1), share)", BY_HAND),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/auccess.py",
        (
            "weights = np.log(k + 1) - np.log(k)",
            "weights = np.log(k + 2) - np.log(k + 1)",
            f"{AUCCESS}auccess_matches_the_reference",
        ),
        ("(solved_at[:, None] <= k)", "(solved_at[:, None] < k)", f"{AUCCESS}auccess_matches_the_reference"),
        ("(solved_at[:, None] > 0) & ", "", f"{AUCCESS}unsolved_tasks_count_and_earlier_is_better"),
        ("counted = counted[counted != 0]", "counted = counted", f"{AUCCESS}invalid_actions_are_no_attempts"),
        ("np.argmax(counted > 0)) + 1", "np.argmax(counted > 0))", f"{AUCCESS}invalid_actions_are_no_attempts"),
    ),
    *of(
        "cjepa_jax/evals/ridge.py",
        (
            "(u**2 * shrink).sum(1) + 1.0 / rows",
            "(u**2 * shrink).sum(1)",
            f"{RIDGE}strength_is_that_of_brute_force_leave_one_out",
        ),
        ("np.maximum(1.0 - leverage, 1e-9)[:, None]", "1.0", f"{RIDGE}strength_is_that_of_brute_force_leave_one_out"),
        (
            "for strength in STRENGTHS * rows:",
            "for strength in STRENGTHS:",
            f"{RIDGE}strength_is_that_of_brute_force_leave_one_out",
        ),
        (
            "shrink = sigma**2 / (sigma**2 + strength)",
            "shrink = sigma / (sigma + strength)",
            f"{RIDGE}strength_is_that_of_brute_force_leave_one_out",
        ),
        (
            "mean, prediction = train_y.mean(0)",
            "mean, prediction = test_y.mean(0)",
            f"{RIDGE}r2_is_against_the_training_mean",
        ),
        (
            "return mean + (test_x - centre) / scale",
            "return (test_x - centre) / scale",
            f"{RIDGE}r2_is_against_the_training_mean",
        ),
        (
            "(test_x - centre) / scale @",
            "(test_x - test_x.mean(0)) / scale @",
            f"{RIDGE}r2_is_against_the_training_mean",
        ),
        (
            "np.where(np.ptp(test_y, axis=0) > 0, 1.0",
            "np.where(np.ptp(test_y, axis=0) >= 0, 1.0",
            f"{RIDGE}constant_features_and_targets",
        ),
    ),
    *of(
        "cjepa_jax/evals/heads.py",
        (
            "== train_y[:, None], 1.0, -1.0)",
            "== train_y[:, None], 1.0, 0.0)",
            f"{HEADS}ridge_classifies_as_the_closed_form",
        ),
        ("int(losses.argmin()) + 1", "looks", f"{HEADS}the_held_out_rows_stop_it_before_it_learns_noise"),
        (
            "np.asarray(run(len(x) - held, looks)[1])",
            "np.asarray(run(len(x), looks)[1])",
            f"{HEADS}the_held_out_rows_stop_it_before_it_learns_noise",
        ),
        ("return (out * scale + centre)", "return (out + centre)", f"{HEADS}a_regression_in_the_targets_own_units"),
        (
            "jax.nn.softmax(out) if classes else out",
            "out",
            f"{HEADS}an_mlp_solves_xor_which_a_ridge_cannot_and_repeats_its_bits",
        ),
    ),
    *of(
        "cjepa_jax/evals/benchmarks/cophy.py",
        (
            "error = ((prediction - truth) ** 2).mean(-1)",
            "error = ((prediction - truth) ** 2).sum(-1)",
            f"{COPHY}the_score_by_hand",
        ),
        ("present.sum(1) * truth.shape[1]", "present.sum(1)", f"{COPHY}the_score_by_hand"),
        ("* present[:, None]", "* (present[:, None] | True)", f"{COPHY}the_score_by_hand"),
        (
            "moved.argmax() if moved.max() > STILL else -1",
            "moved.argmax()",
            f"{COPHY}pairs_hold_the_task_and_only_the_first_frame_of_c",
        ),
        ('np.where(pair["present_cd"], moved, np.inf), 0.0)', "moved, 0.0)", f"{COPHY}the_changed_object"),
        (
            "truth=truth[1:], factual=factual[1:]",
            "truth=truth[:-1], factual=factual[1:]",
            f"{COPHY}pairs_hold_the_task_and_only_the_first_frame_of_c",
        ),
        ("weights / weights.sum(-1, keepdims=True).clip(1)", "weights", f"{COPHY}what_the_head_is_given"),
    ),
    *of(
        "cjepa_jax/evals/surprise.py",
        (
            "np.arange(times * cells) < t * cells",
            "np.arange(times * cells) < (t + 1) * cells",
            f"{SURPRISE}surprise_is_the_distance_of_what_is_predicted_from_the_past",
        ),
        (
            "np.abs(seen.prediction.reshape(target.shape)[:, t] - target[:, t])",
            "np.square(seen.prediction.reshape(target.shape)[:, t] - target[:, t])",
            f"{SURPRISE}surprise_is_the_distance_of_what_is_predicted_from_the_past",
        ),
        (
            "tokens = (model.target or model.encode)(video)",
            "tokens = model.encode(video)",
            f"{SURPRISE}surprise_is_the_distance_of_what_is_predicted_from_the_past",
        ),
        (
            "(tokens - tokens.mean(-1, keepdims=True))",
            "tokens",
            f"{SURPRISE}surprise_is_the_distance_of_what_is_predicted_from_the_past",
        ),
        (
            '"vanishes": np.concatenate([full[:, :cut], without[:, cut:]], 1)',
            '"vanishes": np.concatenate([without[:, :cut], full[:, cut:]], 1)',
            f"{SURPRISE}possible_and_impossible_clips_are_made_of_the_same_frames",
        ),
        (
            "np.where(equal, 0.5, one > other)",
            "np.where(equal, 0.0, one > other)",
            f"{SURPRISE}measures_of_surprise_are_counts",
        ),
        (
            "(below + upto).mean() / (2 * len(negative))",
            "below.mean() / len(negative)",
            f"{SURPRISE}auroc_is_the_share_of_pairs_in_order",
        ),
        (
            "possible, impossible = surprise[:2], surprise[2:]",
            "impossible, possible = surprise[:2], surprise[2:]",
            f"{SURPRISE}measures_of_surprise_are_counts",
        ),
        (
            "scored = np.r_[1:first, first + self.curtain : times]",
            "scored = np.r_[1:times]",
            f"{SURPRISE}who_expects_what_is_possible_is_always_surprised_by_the_rest",
        ),
    ),
    *of(
        "cjepa_jax/evals/classify.py",
        (
            "np.take_along_axis(similarity, best, 1) - 1) / TEMPERATURE)",
            "np.take_along_axis(similarity, best, 1) - 1))",
            f"{CLASSIFY}votes_of_neighbours_are_those_of_a_loop",
        ),
        (
            "np.argpartition(-similarity",
            "np.argpartition(similarity",
            f"{CLASSIFY}votes_of_neighbours_are_those_of_a_loop",
        ),
        ("max(1, round(share * len(r)))", "round(share * len(r))", f"{CLASSIFY}a_share_of_every_class"),
        (
            'jax.nn.softmax(x @ params["score"], axis=1)',
            'jax.nn.softmax(x @ params["score"], axis=2)',
            f"{CLASSIFY}attention_is_a_weighted_mean_of_values",
        ),
        (
            'np.rint(arrays["labels"][:, index])',
            'np.floor(arrays["labels"][:, index])',
            f"{CLASSIFY}classes_are_the_sources_or_a_rounded_label",
        ),
    ),
    *of(
        "cjepa_jax/evals/collapse.py",
        (
            "return float(np.exp(-(shares * np.log(shares)).sum()))",
            "return float(1 / (shares**2).sum())",
            f"{COLLAPSE}rankme_of_known_spectra",
        ),
        (
            "between = spread.T @ spread / len(means)",
            "between = spread.T @ spread",
            f"{COLLAPSE}lidar_does_not_follow_scale_rotation_offset_or_order",
            "the effective rank of a matrix does not depend on its scale",
        ),
        (
            "half = vectors / np.sqrt(values)",
            "half = vectors * np.sqrt(values)",
            f"{COLLAPSE}lidar_of_known_covariances",
        ),
        (
            "scatter = means - means.mean(0), views - means[:, None]",
            "scatter = means - means.mean(0), views",
            f"{COLLAPSE}lidar_of_known_covariances",
        ),
        (
            "spread, scatter = means - means.mean(0)",
            "spread, scatter = means",
            f"{COLLAPSE}lidar_does_not_follow_scale_rotation_offset_or_order",
        ),
        (
            '"rankme/centred": rankme(features - features.mean(0))',
            '"rankme/centred": rankme(features)',
            f"{COLLAPSE}a_common_mean_lowers_the_rank_only_where_it_is_not_subtracted",
        ),
    ),
    *of(
        "cjepa_jax/evals/finetune.py",
        ('share if names[0] == "encoder" else head_share', "head_share", f"{FINETUNE}rates_and_what_is_never_trained"),
        ("0.0 if FIXED in names else", "share if FIXED in names else", f"{FINETUNE}rates_and_what_is_never_trained"),
        (
            "if error < least else",
            "if error > least else",
            f"{FINETUNE}early_stopping_keeps_what_is_best_on_the_held_out_fifth",
        ),
        (
            "held = items // 5 if stop else 0",
            "held = items // 2 if stop else 0",
            f"{FINETUNE}early_stopping_fits_the_first_four_fifths",
        ),
        (
            "found = best if held else params",
            "found = params",
            f"{FINETUNE}early_stopping_keeps_what_is_best_on_the_held_out_fifth",
        ),
        ("order[: items // batch * batch]", "order[: batch]", f"{FINETUNE}every_epoch_is_another_order_of_all_items"),
        (
            '"order of fine-tuning", epoch)',
            '"order of fine-tuning", 0)',
            f"{FINETUNE}every_epoch_is_another_order_of_all_items",
        ),
        (
            "share: float = 0.1\n    head_share: float = 0.1\n    stop: bool = False",
            "share: float = 0.2\n    head_share: float = 0.1\n    stop: bool = False",
            f"{FINETUNE}the_documents_rate_is_a_tenth_of_the_pretrainings",
        ),
        (
            "(1 - error.sum(0) / variance.sum(0)).mean()",
            "(1 - error.sum() / variance.sum())",
            f"{FINETUNE}explained_is_r2",
        ),
    ),
)

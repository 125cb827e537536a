"""Mutants of the step and of the objectives."""

from tests.mutants.mutant import of, tests_of

(STEP,) = tests_of("", "train_step")
JEPA, SUPERVISED, VIEWS = tests_of("objectives/", "jepa", "supervised", "views")
GOLDEN = tests_of("", "three_steps")[0] + "three_steps_are_the_documents"
PLAIN, PACKED = f"{GOLDEN}[plain]", f"{GOLDEN}[packed-accumulated]"
CROSS, ZEROED = f"{GOLDEN}[cross-drop_tokens]", f"{GOLDEN}[zeroed-elementwise]"
ONE_PART = f"{STEP}a_step_that_is_not_finite_in_one_part_alone_changes_nothing"

OBJECTIVES = (
    *of(
        "cjepa_jax/train_step.py",
        (
            "jax.random.fold_in(jax.random.key(seed), state.step)",
            "jax.random.key(seed)",
            f"{STEP}every_step_draws_from_the_seed_and_its_number",
        ),
        (
            "jax.random.key(seed), state.step)",
            "jax.random.key(0), state.step)",
            f"{STEP}every_step_draws_from_the_seed_and_its_number",
        ),
        (
            "objective.init(jax.random.key(seed), batch)",
            "objective.init(jax.random.key(0), batch)",
            f"{JEPA}state_derives_from_the_seed",
        ),
        ("rate = learning_rate(state.step)", "rate = learning_rate(state.step + 1)", PLAIN),
        ("lambda update: -rate * update", "lambda update: rate * update", PLAIN),
        (
            "optimizer.update(gradient, state.opt_state, state.params)",
            "optimizer.update(gradient, state.opt_state, gradient)",
            PLAIN,
        ),
        (
            "objective.next_target(params, state.target, state.step)",
            "objective.next_target(params, state.target, state.step + 1)",
            PLAIN,
        ),
        (
            "objective.next_target(params, state.target, state.step)",
            "objective.next_target(state.params, state.target, state.step)",
            PLAIN,
        ),
        ("jnp.isfinite(loss) & jnp.isfinite(grad_norm)", "jnp.isfinite(grad_norm)", ONE_PART),
        (
            "jnp.isfinite(loss) & jnp.isfinite(grad_norm) &",
            "jnp.isfinite(loss) &",
            ONE_PART,
            "Adam makes NaN of an infinite gradient, inf / inf, so that the norm of the update finds it too",
        ),
        (" & jnp.isfinite(update_norm)", "", ONE_PART),
        ("jnp.where(finite, new, old)", "new", ONE_PART),
        ("(params, target, extra, opt_state),", "(params, target, extra, state.opt_state),", PLAIN),
        ("TrainState(state.step + 1, *learned", "TrainState(state.step + finite, *learned", ONE_PART),
        (
            "*learned, state.skipped + skipped)",
            "*learned, skipped)",
            f"{JEPA}a_step_that_is_not_finite_changes_nothing_and_names_the_scene",
        ),
    ),
    *of(
        "cjepa_jax/microbatch.py",
        (
            "jax.random.fold_in(key, number))",
            "key)",
            f"{STEP}every_slice_draws_from_a_key_of_its_own_and_the_gradient_is_of_all",
        ),
        (
            "parts = place * microbatches + jnp.arange(microbatches)",
            "parts = jnp.arange(microbatches)",
            f"{STEP}every_slice_draws_from_a_key_of_its_own_and_the_gradient_is_of_all",
        ),
        (
            "*slope.shape[1:])[place]",
            "*slope.shape[1:])[0]",
            f"{STEP}devices_of_pmap_are_one_batch[kl-2-2]",
        ),
        (
            "gradient = lax.psum(gradient, axis)",
            "gradient = lax.pmean(gradient, axis)",
            f"{STEP}every_slice_draws_from_a_key_of_its_own_and_the_gradient_is_of_all",
        ),
        (
            "jax.tree.map(jnp.add, gradient, *pull_back(slope))",
            "jax.tree.map(lambda a, b: b, gradient, *pull_back(slope))",
            f"{STEP}every_slice_draws_from_a_key_of_its_own_and_the_gradient_is_of_all",
        ),
        (
            "*x.shape[1:]).swapaxes(0, 1).reshape(microbatches, -1",
            "*x.shape[1:]).reshape(microbatches, -1",
            "tests/test_accumulate.py::test_per_scene_and_slices_keep_the_order_of_data_shards",
        ),
        (
            "shards, -1, *x.shape[2:]).swapaxes(0, 1).reshape(-1",
            "shards, -1, *x.shape[2:]).reshape(-1",
            "tests/test_accumulate.py::test_per_scene_and_slices_keep_the_order_of_data_shards",
        ),
        (
            'if getattr(type(objective), "loss", None) is not PerExample.loss:',
            "if False:",
            "tests/test_accumulate.py::test_objectives_that_need_the_batch_as_a_whole_are_refused_slices",
        ),
    ),
    *of(
        "cjepa_jax/objectives/jepa.py",
        (
            'jax.tree.map(jnp.copy, fresh["params"])',
            "jax.tree.map(jnp.zeros_like, encoder)",
            f"{JEPA}the_target_starts_as_a_copy",
        ),
        (
            "full, intervened = self.targets(target, batch)",
            'full, intervened = self.targets(params["encoder"], batch)',
            PLAIN,
        ),
        ("~batch.context if batch.hidden is None else batch.hidden, batch.valid", "~batch.context, batch.valid", CROSS),
        ('layer_norm(full) if self.target_norm == "layer_norm" else full', "full", ZEROED),
        ("prediction, wanted, hidden, self.beta,", "prediction, wanted, hidden,", ZEROED),
        ("prediction, wanted, hidden, self.beta,", "prediction, wanted, jnp.ones_like(hidden), self.beta,", PLAIN),
        (
            "losses.masked_mean(context.astype(jnp.float32), _wide(batch.context, context), axis=1)",
            "context.astype(jnp.float32).mean(1)",
            PLAIN,
        ),
        ('"fallback": ~batch.removed.any(-1)', '"fallback": ~batch.removed.all(-1)', PLAIN),
        ("losses.norm(prediction - wanted), hidden", "losses.norm(prediction - full), hidden", ZEROED),
        ("valid if batch.intervened_valid is None else valid & batch.intervened_valid", "valid", PACKED),
        ("valid & batch.intervened_valid", "batch.intervened_valid", PACKED),
        ("(residual, full, intervened, counted", "(residual, intervened, full, counted", PLAIN),
        ("& batch.removed[..., None]).any(1)", ").any(1)", PLAIN),
        ('rest if self.causal_tokens == "remaining" else batch.context', "batch.context", PACKED),
        ('rest if self.causal_tokens == "remaining" else batch.context', "rest", ZEROED),
        ("(residual, full, intervened, counted", "(residual, full, intervened, hidden", PLAIN),
        (
            "moments(residual, full - intervened, rest, counts)",
            "moments(residual, full - intervened, batch.context, counts)",
            PACKED,
        ),
        ('losses.masked_mean(terms["prediction"], valid)', 'terms["prediction"].mean()', PACKED),
        (
            'total = values["prediction"] + self.sigreg_weight * values["sigreg"]',
            'total = values["prediction"] + values["sigreg"]',
            PLAIN,
        ),
        ('total = total + self.causal_weight * values["causal"]', 'total = total + values["causal"]', PLAIN),
        (
            'losses.masked_mean(terms["causal"], stats["causal"])',
            'losses.masked_mean(terms["causal"], valid)',
            PACKED,
        ),
        (
            "losses.feature_std(pooled, valid),\n            # RankMe",
            "losses.feature_std(pooled),\n            # RankMe",
            PACKED,
        ),
        ("jnp.exp(jnp.log(pooled.shape[-1]) - jax.lax", "jnp.exp(jnp.log(pooled.shape[0]) - jax.lax", PLAIN),
        ('(valid & stats["fallback"]).sum()', 'stats["fallback"].sum()', PACKED),
        ("old + (1.0 - tau) * (new - old)", "old + tau * (new - old)", PLAIN),
        (
            '{"keep": batch.context} if self.encoder_input == "zeroed"',
            '{"keep": batch.context} if self.encoder_input != "zeroed"',
            PLAIN,
        ),
        (
            "intervened = self.encode(target, batch.intervened)",
            "intervened = self.encode(target, batch.observation)",
            PLAIN,
        ),
        ('self._encoder.apply({"params": target}, batch.observation, rows=batch.rows)', "full", CROSS),
        (
            'self._encoder.apply({"params": target}, batch.observation, rows=batch.rows)',
            'self._encoder.apply({"params": target}, batch.observation, keep=batch.context)',
            CROSS,
        ),
        ("losses.sigreg_floor(valid.sum(), pooled", "losses.sigreg_floor(valid.size, pooled", PACKED),
        ("kl = losses.sigreg(pooled, valid)", "kl = losses.sigreg(pooled)", PACKED),
        (
            "return losses.epps_pulley(pooled, slices, valid)",
            "return losses.epps_pulley(pooled, slices)",
            f"{JEPA}either_sigreg_tells_normal_features_from_collapsed_ones",
        ),
        ("jax.nn.standardize(x, axis=-1, epsilon=1e-6)", "jax.nn.standardize(x, axis=1, epsilon=1e-6)", ZEROED),
    ),
    *of(
        "cjepa_jax/objectives/explained.py",
        ("tokens = mask & valid[:, None]", "tokens = mask", PACKED),
        ("share * (variance + jnp.square(moments", "share * (jnp.square(moments", PACKED),
        (
            "return 1.0 - error.sum() / jnp.maximum(variance.sum(), 1e-12)",
            "return error.sum() / jnp.maximum(variance.sum(), 1e-12)",
            PLAIN,
        ),
    ),
    *of(
        "cjepa_jax/objectives/joint.py",
        (
            "(size >= (area[0] - 1e-6) * tokens)",
            "(size > (area[0] + 1e-6) * tokens)",
            "tests/objectives/test_joint.py::test_the_draw_is_algorithm_2",
        ),
        (
            "eligible = (size > 0) & ",
            "eligible = ",
            "tests/objectives/test_joint.py::test_an_empty_slot_is_never_removed",
        ),
        (
            "jax.random.randint(count_key, (), 1, max_objects + 1)",
            "jax.random.randint(count_key, (), 1, max_objects)",
            "tests/objectives/test_joint.py::test_the_draw_is_algorithm_2",
        ),
        (
            "masked.any() & ~masked.all()",
            "masked.any()",
            "tests/objectives/test_joint.py::test_the_draw_is_algorithm_2",
        ),
        (
            "jax.lax.stop_gradient(target), batch.video",
            "params, batch.video",
            "tests/objectives/test_joint.py::test_only_the_reconstruction_teaches_the_slots",
        ),
        ("jnp.maximum(union, 1)", "jnp.maximum(true.sum(-1), 1)", "tests/objectives/test_joint.py::test_best_overlap"),
        (
            "losses.masked_mean(overlap.max(-1), true.any(-1)[..., 0], axis=-1)",
            "overlap.max(-1).mean(-1)",
            "tests/objectives/test_joint.py::test_best_overlap",
        ),
    ),
    *of(
        "cjepa_jax/objectives/mae.py",
        (
            "boxes.var(-1, ddof=1, keepdims=True)",
            "boxes.var(-1, keepdims=True)",
            "tests/objectives/test_mae.py::test_the_loss_by_loops",
        ),
        (
            "losses.mse(prediction, wanted, hidden",
            "losses.mse(prediction, wanted, ~batch.context",
            "tests/objectives/test_mae.py::test_only_hidden_patches_have_an_error",
        ),
        (
            "wanted, painted) * scale + mean",
            "wanted, painted) * scale",
            "tests/objectives/test_mae.py::test_a_picture_is_the_scene_where_it_is_visible",
        ),
    ),
    *of(
        "cjepa_jax/objectives/siamese.py",
        ("wanted[:, 1 - view])", "wanted[:, view])", "tests/objectives/test_siamese.py::test_byol_is_its_formula"),
        (
            'wanted = jax.lax.stop_gradient(by_view(self._projector, target["projector"], {}, seen, valid)[0])',
            'wanted = by_view(self._projector, target["projector"], {}, seen, valid)[0]',
            "tests/objectives/test_siamese.py::test_gradients_reach_every_parameter_and_never_the_target",
        ),
        (
            "old + (1.0 - tau) * (new - old)",
            "old + tau * (new - old)",
            "tests/objectives/test_siamese.py::test_byols_target_follows_encoder_and_projector",
        ),
        (
            '(1.0 - self.weight) * terms["invariance"] + self.weight',
            'terms["invariance"] + self.weight',
            "tests/objectives/test_siamese.py::test_lejepa_is_its_formula",
        ),
        (
            "projected[:, : self._views.count].mean(1, keepdims=True)",
            "projected[:, : self._views.count].mean(0, keepdims=True)",
            "tests/objectives/test_siamese.py::test_lejepa_is_its_formula",
        ),
        (
            "projected[:, : self._views.count].mean(1, keepdims=True)",
            "projected.mean(1, keepdims=True)",
            "tests/objectives/test_siamese.py::test_all_views_agree_with_the_mean_of_the_large_ones",
        ),
        (
            "total = losses.masked_mean(per_scene, valid)",
            "total = per_scene.mean()",
            "tests/objectives/test_siamese.py::test_invalid_scenes_change_nothing",
        ),
    ),
    *of(
        "cjepa_jax/objectives/supervised.py",
        (
            "share = more / jnp.maximum(count, 1.0)",
            "share = 0.5",
            f"{SUPERVISED}label_statistics_are_exact_over_batches",
        ),
        ('+ jnp.square(shift) * seen["count"] * share', "", f"{SUPERVISED}label_statistics_are_exact_over_batches"),
        (
            "jnp.where(rows, jnp.square(labels - mean), 0.0)",
            "jnp.square(labels - mean)",
            f"{SUPERVISED}label_statistics_are_exact_over_batches",
        ),
        (
            "wanted[:, 0].astype(jnp.int32)",
            "wanted[:, -1].astype(jnp.int32)",
            f"{SUPERVISED}errors_of_classes_and_of_labels_by_hand",
        ),
        (
            '(wanted - labels["mean"]) / jnp.maximum(deviation, 1e-6)',
            'wanted - labels["mean"]',
            f"{SUPERVISED}errors_of_classes_and_of_labels_by_hand",
        ),
        (
            "total = losses.masked_mean(per_scene, valid)",
            "total = per_scene.mean()",
            f"{SUPERVISED}errors_of_classes_and_of_labels_by_hand",
        ),
    ),
    *of(
        "cjepa_jax/objectives/views.py",
        (
            "jnp.where(clip >= 128.0, 255.0 - clip, clip)",
            "jnp.where(clip > 128.0, 255.0 - clip, clip)",
            f"{VIEWS}grey_and_solarised",
        ),
        ("clip[:, :, ::-1], clip)", "clip[:, ::-1], clip)", f"{VIEWS}a_crop_shows_its_box_and_a_flip_its_mirror"),
        (
            "jnp.minimum(jnp.sqrt(area * rows * cols / ratio), rows)",
            "jnp.minimum(jnp.sqrt(area * rows * cols * ratio), rows)",
            f"{VIEWS}crops_have_the_stated_distribution_and_lie_inside",
        ),
        (
            "area * cols / rows, cols / rows / area))",
            "area, 1 / area))",
            f"{VIEWS}crops_have_the_stated_distribution_and_lie_inside",
        ),
        (
            "jnp.stack([rows - height, cols - width])",
            "jnp.stack([rows, cols])",
            f"{VIEWS}crops_have_the_stated_distribution_and_lie_inside",
        ),
        (
            "jax.random.fold_in(key, index), jnp.array(numbers)",
            "key, jnp.array(numbers)",
            f"{VIEWS}the_same_key_gives_the_same_bits_and_all_draws_differ",
        ),
        (
            "size, self.small_scale)",
            "size, self.scale)",
            f"{VIEWS}small_views_have_their_own_size_and_share_of_the_frame",
        ),
    ),
)

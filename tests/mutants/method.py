"""Mutants of the losses, the schedules and the optimiser."""

from tests.mutants.mutant import of, tests_of

LOSS, SCHEDULE, OPTIM = tests_of("", "losses", "schedules", "optim")
SIAMESE = tests_of("objectives/", "siamese")[0]
GOLDEN = tests_of("", "three_steps")[0] + "three_steps_are_the_documents"
PLAIN = f"{GOLDEN}[plain]"
EPPS = f"{LOSS}epps_pulley_golden"

METHOD = (
    *of(
        "cjepa_jax/losses.py",
        ("0.5 * jnp.square(size) / beta", "0.5 * jnp.square(size)", f"{LOSS}smooth_l1_golden"),
        ("size - 0.5 * beta)", "size - beta)", f"{LOSS}smooth_l1_golden"),
        ("jnp.where(size < beta", "jnp.where(size < 1.0", f"{LOSS}smooth_l1_golden"),
        ("jnp.maximum(weight.sum(axis), 1)", "jnp.maximum(weight.size, 1)", f"{LOSS}smooth_l1_golden"),
        (
            "return per_scene.mean() if valid is None else masked_mean(per_scene, valid)",
            "return per_scene.mean()",
            f"{LOSS}scenes_without_masked_tokens_stay_in_the_denominator_and_invalid_ones_leave_it",
        ),
        ("zero = square == 0", "zero = square > 1e30", f"{LOSS}token_losses_have_finite_gradients"),
        ("zero = square == 0", "zero = ~(square > 0)", f"{LOSS}what_is_not_finite_is_never_hidden"),
        (
            "huber(norm(_error(prediction, target)), beta)",
            "huber(jnp.abs(_error(prediction, target)), beta).sum(-1)",
            f"{LOSS}smooth_l1_golden",
        ),
        (
            "huber(jnp.abs(_error(prediction, target)), beta).mean(-1)",
            "huber(jnp.abs(_error(prediction, target)), beta).sum(-1)",
            f"{LOSS}token_losses_match_float64",
        ),
        (
            "return (error * jnp.sign(error)).mean(-1)",
            "return (error * jnp.sign(error)).sum(-1)",
            f"{LOSS}token_losses_match_float64",
        ),
        ("(error * jnp.sign(error)).mean(-1)", "error.mean(-1)", f"{LOSS}token_losses_match_float64"),
        (
            "jnp.square(_error(prediction, target)).mean(-1)",
            "jnp.square(_error(prediction, target)).sum(-1)",
            f"{LOSS}token_losses_match_float64",
        ),
        (
            "change = full.astype(jnp.float32) - intervened.astype(jnp.float32)",
            "change = intervened.astype(jnp.float32) - full.astype(jnp.float32)",
            f"{LOSS}causal_consistency_golden",
        ),
        (
            "jnp.square(_error(residual, change)).sum(-1)",
            "jnp.square(_error(residual, change)).mean(-1)",
            f"{LOSS}causal_consistency_golden",
        ),
        (
            "- jax.lax.stop_gradient(target.astype(jnp.float32))",
            "- target.astype(jnp.float32)",
            f"{LOSS}no_gradient_reaches_targets",
        ),
        (
            "centred = jnp.where(rows[:, None], features - mean, 0)",
            "centred = jnp.where(rows[:, None], features, 0)",
            f"{LOSS}sigreg_golden",
        ),
        (
            "centred = jnp.where(rows[:, None], features - mean, 0)",
            "centred = features - mean",
            f"{LOSS}invalid_scenes_leave_sigreg_and_the_monitors",
        ),
        (
            "rows = jnp.ones(features.shape[0], bool) if valid is None else valid\n    mean",
            "rows = jnp.ones(features.shape[0], bool)\n    mean",
            f"{LOSS}invalid_scenes_leave_sigreg_and_the_monitors",
        ),
        (
            "singular.values(centred)",
            "jnp.square(singular.values(centred))",
            f"{LOSS}sigreg_golden",
        ),
        ("return jnp.log(features.shape[-1]) - entropy", "return -entropy", f"{LOSS}sigreg_golden"),
        ("jnp.where(share == 0, 1.0, share))).sum()", "share)).sum()", f"{LOSS}sigreg_is_finite_at_singular_features"),
        (
            "jnp.log(width / jnp.clip(rows - 1, 1, width))",
            "jnp.log(width / jnp.clip(rows, 1, width))",
            f"{LOSS}sigreg_floor_is_reached_and_is_log_of_width_over_rank",
        ),
        (
            "jnp.exp(jnp.log(features.shape[-1]) - sigreg(features, valid))",
            "jnp.exp(-sigreg(features, valid))",
            f"{LOSS}rankme_counts_directions",
        ),
        (
            "return jnp.sqrt(masked_mean(jnp.square(features - mean), rows, 0)).mean()",
            "return masked_mean(jnp.square(features - mean), rows, 0).mean()",
            f"{LOSS}sigreg_does_not_see_scale_or_shift_but_the_std_does",
        ),
        (
            "return directions / jnp.linalg.norm(directions, axis=0)",
            "return directions",
            f"{SIAMESE}lejepa_is_its_formula",
        ),
        ("normal = jnp.exp(-0.5 * jnp.square(t))", "normal = jnp.exp(-jnp.square(t))", EPPS),
        ("weight = (2.0 * step * normal)", "weight = (step * normal)", EPPS),
        (".at[jnp.array([0, -1])].multiply(0.5)", ".at[jnp.array([0, -1])].multiply(1.0)", EPPS),
        ("return rows.sum() * (distance @ weight).mean()", "return (distance @ weight).mean()", EPPS),
        ("jnp.square(real - normal) + jnp.square(imaginary)", "jnp.square(real - normal)", EPPS),
        (
            "mask = jnp.broadcast_to(rows[:, None, None], angle.shape)",
            "mask = jnp.ones(angle.shape, bool)",
            f"{LOSS}epps_pulley_leaves_invalid_rows_out_and_has_finite_gradients",
        ),
        ("return 2.0 - 2.0 * cosine", "return 1.0 - cosine", f"{LOSS}cosine_distance"),
        ("return x / jnp.maximum(norm(x), 1e-6)", "return x / jnp.maximum(norm(x), 1.0)", f"{LOSS}cosine_distance"),
    ),
    *of(
        "cjepa_jax/schedules.py",
        (
            "return end - (end - start) * 0.5 * (1.0",
            "return start + (end - start) * 0.5 * (1.0",
            f"{SCHEDULE}ema_momentum_golden",
        ),
        ("jnp.cos(jnp.pi * progress)", "jnp.cos(0.5 * jnp.pi * progress)", f"{SCHEDULE}ema_momentum_golden"),
        (
            "jnp.clip(step / total, 0.0, 1.0)",
            "step / total",
            f"{SCHEDULE}ema_momentum_is_a_cosine_that_stays_at_its_end",
        ),
        (
            "return start + (end - start) * progress",
            "return end - (end - start) * progress",
            f"{SCHEDULE}linear_ema_momentum_is_a_line_that_stays_at_its_end",
        ),
        ("max(total - warmup, 1)", "max(total, 1)", f"{SCHEDULE}learning_rate_golden"),
        ("[warmup])(step)", "[warmup + 1])(step)", f"{SCHEDULE}learning_rate_is_a_line_then_a_cosine"),
        ("[warmup])(step)", "[warmup])(step + 1)", f"{SCHEDULE}learning_rate_golden"),
        ("linear_schedule(0.0, peak", "linear_schedule(0.1 * peak, peak", f"{SCHEDULE}learning_rate_golden"),
    ),
    *of(
        "cjepa_jax/optim.py",
        ('("blocks" in names) >= 2', '("blocks" in names) >= 1', f"{OPTIM}decay_is_on_matrices_only"),
        ('leaf.ndim - ("blocks" in names) >= 2', "leaf.ndim >= 2", f"{OPTIM}decay_is_on_matrices_only"),
        ('("positions", "object_embedding")', '("positions",)', f"{OPTIM}decay_is_on_matrices_only"),
        ('("positions", "object_embedding")', '("object_embedding",)', f"{OPTIM}decay_is_on_matrices_only"),
        ("b2=optim.b2", "b2=optim.b1", f"{OPTIM}three_steps_are_adamw_as_published"),
        ("b1=optim.b1", "b1=optim.b2", f"{OPTIM}three_steps_are_adamw_as_published"),
        ("eps=optim.eps)", "eps=optim.eps, eps_root=optim.eps)", PLAIN),
        (
            "add_decayed_weights(optim.weight_decay, mask=matrices)",
            "add_decayed_weights(optim.weight_decay)",
            f"{OPTIM}decay_shrinks_kernels_and_nothing_else",
        ),
        ("clip_by_global_norm(optim.clip)", "clip(optim.clip)", f"{OPTIM}clipping_is_global_and_optional"),
        (
            "own == frozen, part)",
            "own != frozen, part)",
            "tests/loading/test_init_from.py::test_frozen_parts_keep_their_bits_and_the_others_learn_as_ever",
        ),
        ("optim.base * batch / 256", "optim.base * batch / 512", f"{OPTIM}peak_by_the_linear_scaling_rule"),
        ("return optim.peak or optim.base", "return optim.base", f"{OPTIM}peak_by_the_linear_scaling_rule"),
        (
            "optim.warmup_epochs * steps_per_epoch",
            "optim.warmup_epochs",
            f"{OPTIM}warmup_by_epochs_by_share_and_never_longer_than_the_run",
        ),
        (
            "return min(round(steps), total - cooldown_steps(optim, total))",
            "return round(steps)",
            f"{OPTIM}warmup_by_epochs_by_share_and_never_longer_than_the_run",
        ),
        (
            "min(round(steps), total - cooldown_steps(optim, total))",
            "min(round(steps), total)",
            f"{OPTIM}the_cooldown_is_a_share_and_leaves_room_for_the_warm_up",
        ),
        ("decay ** (depth + 1)", "decay**depth", f"{OPTIM}rates_fall_by_layers_towards_the_input"),
        ("jnp.arange(len(leaf), 0, -1)", "jnp.arange(len(leaf))", f"{OPTIM}rates_fall_by_layers_towards_the_input"),
    ),
)

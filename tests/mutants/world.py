"""Mutants of the contract for kinds of scenes, and of world models."""

from tests.mutants.mutant import of, tests_of

(KINDS,) = tests_of("data/", "kinds")
STACK, ENCODER = tests_of("models/", "transformer", "encoder")
CONDITION = f"{STACK}a_fresh_condition_changes_no_bit_and_a_learned_one_follows_its_formula"
LATER = f"{STACK}what_comes_later_changes_no_bit_of_what_was_before"
SEGMENTS = f"{STACK}with_segments_a_token_sees_its_own_segment_up_to_its_time"
LEVELS = f"{STACK}levels_are_the_outputs_of_blocks_side_by_side_each_with_its_norm"
(WORLD_TESTS,) = tests_of("objectives/", "world")
LEWM = f"{WORLD_TESTS}lewm_gives_the_public_codes_loss_and_gradients"
ROLLED = f"{WORLD_TESTS}lewm_gives_the_public_codes_latents_predictions_and_rollout"
AC = f"{WORLD_TESTS}vjepa2_ac_gives_the_public_codes_losses_predictions_and_gradients"
ALONE = f"{WORLD_TESTS}a_frame_has_the_same_latent_alone_and_in_a_clip_and_a_prediction_uses_the_last_frames"
TERMS = f"{WORLD_TESTS}the_loss_is_the_weighted_sum_of_its_terms_and_reaches_every_parameter"
FROZEN = f"{WORLD_TESTS}with_a_frozen_target_only_the_predictor_learns"
COLLAPSE = f"{WORLD_TESTS}the_terms_against_collapse_are_those_of_eb_jepa"
SCORED = "tests/evals/test_rollouts.py::test_the_true_motion_has_no_error_and_copying_has_that_of_copying"

(REMEMBERING,) = tests_of("objectives/", "remembering")
(ACTS,) = tests_of("data/worlds/", "interventions")

WORLD = (
    *of(
        "cjepa_jax/objectives/remembering.py",
        (
            "(scenes,), max(self.memory - 1, 0), times",
            "(scenes,), self.memory, times",
            f"{REMEMBERING}windows_start_anywhere_from_the_last_frame_of_the_memory_on",
        ),
        (
            ".at[:, : self.memory].set(0)",
            "",
            f"{REMEMBERING}a_clip_is_cut_into_memory_and_window_with_the_windows_actions",
        ),
        (
            "x[:, first:][:, -self.recent :]",
            "x[:, -self.recent - 1 :]",
            f"{REMEMBERING}the_loss_is_that_of_predictions_one_at_a_time",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/interventions.py",
        (
            "position[np.roll(ring, -1)]",
            "position[np.roll(ring, 1)]",
            f"{ACTS}swapped_objects_exchange_their_places_and_nothing_else",
        ),
        (
            "max(rings, key",
            "min(rings, key",
            f"{ACTS}one_alone_exchanges_with_the_object_that_leaves_both_the_most_room",
        ),
        (
            "free.min(1).argmax()",
            "free.min(1).argmin()",
            f"{ACTS}an_inserted_twin_is_drawn_where_it_is_free_and_collides",
        ),
        (
            "contacts[:, 2] != contacts[:, 3]",
            "contacts[:, 2] > -2",
            f"{ACTS}an_inserted_twin_is_drawn_where_it_is_free_and_collides",
        ),
    ),
    *of(
        "cjepa_jax/models/transformer.py",
        ("x * (1 + self.scale) + self.shift", "x * self.scale + self.shift", CONDITION),
        ("update * (1 + self.gate)", "update * self.gate", CONDITION),
        ('each = 3 if self.condition == "adaln" else 2', "each = 3", CONDITION),
        ("norm(outputs[i]) for norm, i", "norm(outputs[0]) for norm, i", LEVELS),
        ('if self.causal == "token" else time', "if False else time", LATER),
    ),
    *of(
        "cjepa_jax/models/visibility.py",
        (
            "k_time)[None, :] <= time[:, None]",
            "k_time)[None, :] < time[:, None]",
            SEGMENTS,
        ),
        ("same if earlier is None else same & earlier", "same", SEGMENTS),
    ),
    *of(
        "cjepa_jax/models/encoder.py",
        (
            "x if positions is None else x + positions",
            "x",
            f"{ENCODER}another_tokenizer_gives_the_tokens_their_codes_and_the_grid",
        ),
        ("grid[1] * grid[2])", "grid[2])", f"{ENCODER}a_causal_encoder_sees_no_later_frame"),
    ),
    *of(
        "cjepa_jax/data/pipeline.py",
        (
            'raw["graph"][np.ix_(kept, kept)]',
            'raw["graph"][: len(kept), : len(kept)]',
            f"{KINDS}the_contacts_of_the_kept_objects_are_a_graph",
        ),
    ),
    *of(
        "cjepa_jax/data/kinds/episodes.py",
        ("if config.data.crop:", "if False:", f"{KINDS}crops_of_episodes_are_refused"),
    ),
    *of(
        "cjepa_jax/data/checks.py",
        (
            "values.ndim != 2 or len(values) != frames",
            "values.ndim != 2",
            f"{KINDS}a_broken_episode_is_refused",
        ),
    ),
    *of(
        "cjepa_jax/objectives/world.py",
        ("wanted[:, 1 + self.memory :])}", "wanted[:, self.memory : -1])}", LEWM),
        ("z[:, :-1], *agent", "z[:, 1:], *agent", LEWM),
        (
            "return flat.swapaxes(0, 1), counted.T",
            "return flat.reshape(1, -1, flat.shape[-1]), counted.reshape(1, -1)",
            LEWM,
        ),
        ("None if x is None else x[:, -self.history :]", "x", ALONE),
        ("params, stats, z, actions, own, train=False)", "params, stats, z, actions, own)", ROLLED),
        ("stats, frames, None, train=False)", "stats, frames, None)", ROLLED),
        ("jax.lax.stop_gradient(self._latents(target", "(self._latents(target", TERMS),
        ('jax.lax.stop_gradient(z) if self.target == "frozen"', 'z if self.target == "frozen"', FROZEN),
        (
            "jnp.concatenate([z[:, :-1], z[:, 1:]], axis=-1)",
            "jnp.concatenate([z[:, 1:], z[:, :-1]], axis=-1)",
            COLLAPSE,
        ),
        ("given[:, self.memory : -1].astype", "given[:, 1 + self.memory :].astype", COLLAPSE),
        ("range(self.rollout - 1)", "range(self.rollout)", AC),
        ("actions[:, start:stop], own", "actions[:, start + 1 : stop + 1], own", AC),
    ),
    *of(
        "cjepa_jax/models/dynamics.py",
        ("_standard(x) * (1 + scale) + shift)", "_standard(x) * scale + shift)", LEWM),
        ("x = x + gate * self._attention", "x = x + self._attention", LEWM),
        ("attention(q, k, v, time=jnp.arange(times))", "attention(q, k, v)", LEWM),
        ("((times, 1, 1), (times, side, side))", "((times, 1, 1), (side, times, side))", AC),
        ('causal="frame", name="stack")', 'causal="none", name="stack")', AC),
    ),
    *of(
        "cjepa_jax/losses.py",
        ("jnp.maximum(rows.sum() - 1, 1)", "jnp.maximum(rows.sum(), 1)", COLLAPSE),
        ("- jnp.square(variance).sum()", "", COLLAPSE),
        ("relu(1.0 - jnp.sqrt(variance + 1e-4))", "relu(1.0 - variance)", COLLAPSE),
    ),
    *of(
        "cjepa_jax/runtime/collapse_monitor.py",
        (
            "if step < self._grace:",
            "if False:",
            "tests/runtime/test_collapse_monitor.py::test_no_alarm_before_the_steps_of_grace_have_passed",
        ),
    ),
    *of(
        "cjepa_jax/evals/rollouts.py",
        ("at = self.given - 1 + step", "at = self.given + step - 2", SCORED),
        ("actions[:, :t], None if", "actions[:, 1 : t + 1], None if", SCORED),
        ("- z[:, at]).mean() / max(copied", "- z[:, at]).mean() / max(2 * copied", SCORED),
        ("row = there.argmax(1)", "row = np.zeros(len(there), int) + 1", SCORED),
    ),
)

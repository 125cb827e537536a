"""Mutants of the worlds with actions, and of the planners."""

from tests.mutants.mutant import of, tests_of

CEM, PLANNERS = tests_of("planning/", "cem", "planners")
ROOMS, PUSH = tests_of("data/worlds/acting/", "rooms", "push")

PLANNING = (
    *of(
        "cjepa_jax/planning/cem.py",
        ("chosen.std(0, ddof=1)", "chosen.std(0)", f"{CEM}the_published_solver_to_1e_6"),
        (
            "jax.lax.top_k(-costs, self.elites)[1]",
            "jax.lax.top_k(costs, self.elites)[1]",
            f"{CEM}the_published_solver_to_1e_6",
        ),
        ("drawn.at[0].set(mean) if self.keep_mean else drawn", "drawn", f"{CEM}the_published_solver_to_1e_6"),
        (
            "share * old + (1 - share) * fresh",
            "(1 - share) * old + share * fresh",
            f"{CEM}momenta_limits_and_first_std_as_in_v_jepa_2_ac",
        ),
        (
            "shares = (self.momentum, self.std_momentum)",
            "shares = (self.momentum, 0.0)",
            f"{CEM}momenta_limits_and_first_std_as_in_v_jepa_2_ac",
        ),
        (
            "drawn = bounded(mean + std * noise, self.low, self.high)",
            "drawn = mean + std * noise",
            f"{CEM}momenta_limits_and_first_std_as_in_v_jepa_2_ac",
        ),
        (
            "best = jnp.where(costs[least] < lowest, candidates[least], best)",
            "best = candidates[least]",
            f"{CEM}the_best_candidate_has_the_lowest_cost_of_all_iterations",
        ),
        (
            "frequencies ** (-colour / 2)",
            "frequencies ** (-colour)",
            f"{CEM}coloured_noise_has_variance_1_and_its_spectrum",
        ),
        ("jnp.where(single, 2, 4)", "jnp.where(single, 2, 2)", f"{CEM}coloured_noise_has_variance_1_and_its_spectrum"),
    ),
    *of(
        "cjepa_jax/planning/base.py",
        (
            "jnp.where(jnp.isnan(costs), jnp.inf, costs)",
            "costs",
            f"{CEM}candidates_with_a_cost_that_is_not_a_number_are_not_chosen",
        ),
    ),
    *of(
        "cjepa_jax/planning/solve.py",
        ("jax.random.fold_in(key, own)", "key", f"{PLANNERS}environments_have_draws_of_their_own"),
    ),
    *of(
        "cjepa_jax/planning/costs.py",
        (
            'each[:, -1] if over == "last"',
            'each[:, 0] if over == "last"',
            f"{PLANNERS}costs_of_the_last_state_and_of_all",
        ),
    ),
    *of(
        "cjepa_jax/planning/mppi.py",
        (
            "-(costs - costs.min()) / self.temperature",
            "-(costs - costs.min())",
            f"{PLANNERS}mppi_weighs_candidates_by_their_costs",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/acting/rooms.py",
        (
            "x = xp.clip(x + move[..., 0], low, high)",
            "x = xp.clip(x + move[..., 0], margin, 1 - margin)",
            f"{ROOMS}the_dot_stays_in_the_rooms_and_crosses_the_wall_only_in_the_door",
        ),
        (
            "inside = at_door & (xp.abs(x - wall) < margin - SLACK)",
            "inside = xp.abs(x - wall) < margin",
            f"{ROOMS}a_rounded_state_moves_the_same",
        ),
        (
            "xp.hypot(move[..., 0], move[..., 1]) / TOLERANCE",
            "xp.abs(move[..., 0]) / TOLERANCE",
            f"{ROOMS}success_is_the_distance_of_the_dot",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/acting/push.py",
        (
            "vx += (STIFF * (to_x - x) - DAMP * vx) * TICK",
            "vx += (STIFF * (to_x - x) + DAMP * vx) * TICK",
            f"{PUSH}open_loop_equals_the_published_environment",
        ),
        (
            "(parts[0].center_of_gravity + parts[1].center_of_gravity) / 2",
            "parts[0].center_of_gravity",
            f"{PUSH}open_loop_equals_the_published_environment",
        ),
        (
            "move = states[..., :4] - goals[..., :4]",
            "move = states[..., 2:4] - goals[..., 2:4]",
            f"{PUSH}all_published_success_flags",
        ),
        (
            "(states[..., 4] - goals[..., 4] + np.pi) % (2 * np.pi) - np.pi",
            "states[..., 4] - goals[..., 4]",
            f"{PUSH}angles_are_compared_around_the_circle",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/acting/base.py",
        (
            "SPLITS[self.split], self._index(i))",
            "0, self._index(i))",
            f"{ROOMS}tasks_are_reproducible_and_differ_from_episodes",
        ),
    ),
)

"""Mutants of the worlds with actions, and of the planners."""

from tests.mutants.mutant import of, tests_of

CEM, PLANNERS, MPC, SLOTS, ENCODED = tests_of("planning/", "cem", "planners", "mpc", "slots", "encoded_slots")
CONTROL, GYM = tests_of("evals/", "control", "gymnasium")
ROOMS, PUSH, NUDGE, DOING = tests_of("data/worlds/acting/", "rooms", "push", "nudge", "doing")

(AGENT,) = tests_of("planning/", "agent")
(LEARNED,) = tests_of("evals/", "agent")

NEXT = f"{SLOTS}the_next_slots_are_the_trainings_prediction_of_the_future"
ROLLED = f"{SLOTS}a_rollout_sees_its_own_predictions_and_every_action_in_its_place"
MEMORY = f"{SLOTS}a_policy_remembers_the_last_frames_and_the_actions_between_them"
GOALS = f"{ENCODED}the_goals_slots_start_from_those_of_the_present_frame"
PLAYING = f"{ENCODED}slots_seen_while_playing_are_those_of_the_extraction"
UNITS = f"{ENCODED}the_model_gets_actions_in_the_units_of_its_data"
PLANNING = (
    *of(
        "cjepa_jax/objectives/slots.py",
        ("[:, -1, : tokens.shape[2]]", "[:, -2, : tokens.shape[2]]", NEXT),
        ("return jnp.where(held[:, 0, : tokens.shape[2], None], following, 0)", "return following", NEXT),
        ("visible = held & (jnp.arange(given.shape[1])[:, None] < tokens.shape[1])", "visible = held", NEXT),
    ),
    *of(
        "cjepa_jax/planning/costs.py",
        ("return best / slots + rest", "return (best + rest) / goal.shape[0]", f"{SLOTS}the_public_codes_costs"),
        ("rows * slots + columns", "columns * slots + rows", f"{SLOTS}the_cost_is_that_of_the_best_assignment"),
        ("chosen.argmin(-1", "chosen.argmax(-1", f"{SLOTS}the_cost_is_that_of_the_best_assignment"),
        (
            "x[..., jnp.arange(slots), orders].sum(-1) for x in (pairs, unlike)",
            "x[..., jnp.arange(slots), orders].sum(-1) for x in (unlike, unlike)",
            f"{SLOTS}small_differences_count_where_another_number_of_slots_is_present",
        ),
    ),
    *of(
        "cjepa_jax/planning/mpc.py",
        (
            "tokens(params, seen)[:, -1]",
            "tokens(params, seen)[:, 0]",
            f"{SLOTS}a_rollout_sees_its_own_predictions_and_every_action_in_its_place",
        ),
        (
            "autoregressive(step, objective.history)",
            "autoregressive(step, 1)",
            f"{SLOTS}a_rollout_from_one_frame_remembers_more_and_more_up_to_the_history",
        ),
    ),
    *of(
        "cjepa_jax/evals/slot_control.py",
        ("done[len(done) - self._before :]", "done[: self._before]", MEMORY),
        (
            "[*self.frames, self.sight.look(states)][-self._before - 1 :]",
            "[*self.frames, self.sight.look(states)][: self._before + 1]",
            MEMORY,
        ),
        (
            "recurrent.beside(self.slots, self.state)",
            "self.state",
            f"{ENCODED}the_goals_slots_start_from_those_of_the_present_frame",
        ),
        (
            "self.frames[:: self.stride]",
            "self.frames[-self.memory :]",
            f"{ENCODED}slots_seen_while_playing_are_those_of_the_extraction",
        ),
        (
            'seen | {"actions": units(seen["actions"])}',
            'seen | {"actions": seen["actions"]}',
            UNITS,
        ),
        (
            "predict(params, context, units(actions))",
            "predict(params, context, actions)",
            UNITS,
        ),
    ),
    *of(
        "cjepa_jax/planning/agent.py",
        (
            "jnp.arange(memory.shape[1]) >= frame",
            "jnp.arange(memory.shape[1]) == frame",
            f"{AGENT}the_first_latents_stay_and_the_newest_stands_for_those_to_come",
        ),
        (
            "total + self.critic(",
            "total - self.critic(",
            f"{AGENT}the_cost_is_the_sum_of_distances_and_the_critics_word_on_the_last_latent",
        ),
        (
            "kept, outcome[:, -1], goals",
            "kept, outcome[:, 0], goals",
            f"{AGENT}the_cost_is_the_sum_of_distances_and_the_critics_word_on_the_last_latent",
        ),
        (
            "self.frame < self.modules.slots:",
            "False:",
            f"{AGENT}it_does_nothing_until_its_memory_is_full_and_repeats_itself",
        ),
        (
            "jnp.concatenate([first, latents], 1)",
            "jnp.concatenate([latents, first], 1)",
            f"{AGENT}modules_of_an_objective_see_memory_and_latents_in_one_sequence",
        ),
    ),
    *of(
        "cjepa_jax/evals/agent.py",
        ("[later[:, 1:], np.zeros_like", "[later[:, :-1], np.zeros_like", f"{LEARNED}the_costs_that_follow_a_frame"),
        ("np.where(self.reached, 0, each)", "each", f"{LEARNED}the_costs_that_follow_a_frame"),
        (
            "costs[rows][counts]",
            "costs[episode[:, None], later][counts]",
            f"{LEARNED}predicted_latents_have_the_costs_of_the_frames_that_they_predict",
        ),
    ),
    *of(
        "cjepa_jax/planning/pose.py",
        (
            "matrix(action[..., TURN]) @ matrix(pose[..., TURN])",
            "matrix(pose[..., TURN]) @ matrix(action[..., TURN])",
            "tests/planning/test_pose.py::test_poses_are_those_of_the_public_code",
        ),
    ),
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
        (
            "gap + rng.uniform(-0.9, 0.9) * (DOOR - self.radius)",
            "gap + rng.uniform(1.1, 1.9) * DOOR",
            f"{ROOMS}press_pushes_at_the_wall_in_front_of_the_door_and_elsewhere",
        ),
        ("world.advance(starts, np.zeros(2))", "starts", f"{DOING}a_dot_in_a_wall_begins_beside_it"),
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
            "twin.velocity = (vx, vy)",
            "twin.velocity = (vy, vx)",
            f"{DOING}in_push_twins_are_further_bodies_of_one_simulation",
        ),
        (
            "np.clip(place, VIEW * LOW - points.min(0), VIEW * HIGH - points.max(0))",
            "place",
            f"{DOING}in_push_agent_and_block_exchange_their_places_within_the_walls",
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
        "cjepa_jax/data/worlds/acting/nudge.py",
        ("PUSH * np.clip(action, -1, 1)", "PUSH * action", f"{NUDGE}a_push_changes_the_agents_velocity_alone"),
        ("min(1.0, FASTEST /", "max(1.0, FASTEST /", f"{NUDGE}a_push_changes_the_agents_velocity_alone"),
        (
            "np.flatnonzero(act.stands_for == 0)",
            "np.flatnonzero(act.stands_for == 0)[:1]",
            f"{DOING}discs_that_no_chain_of_contacts_reaches_keep_every_bit",
        ),
        (
            "np.clip(now.position, low, 1 - low)",
            "now.position",
            f"{DOING}exchanged_discs_begin_off_the_walls_and_the_others_where_they_were",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/acting/push_expert.py",
        ("TURN = 3000**0.5", "TURN = 1500**0.5", f"{PUSH}the_expert_knows_the_shape_and_the_mass_of_the_block"),
        (
            "np.array([a[1] - b[1], b[0] - a[0]])",
            "np.array([b[1] - a[1], a[0] - b[0]])",
            f"{PUSH}the_expert_knows_the_shape_and_the_mass_of_the_block",
        ),
        (
            "np.array([*(turn.T @ move), TURN * around])",
            "np.array([*(turn @ move), TURN * around])",
            f"{PUSH}the_expert_pushes_the_block_to_its_goal",
        ),
    ),
    *of(
        "cjepa_jax/data/worlds/acting/base.py",
        (
            "SPLITS[self.split], self._index(i))",
            "0, self._index(i))",
            f"{ROOMS}tasks_are_reproducible_and_differ_from_episodes",
        ),
        ("np.cumsum([share", "np.array([share", f"{ROOMS}a_mix_has_its_shares_and_off_is_the_same"),
    ),
    *of(
        "cjepa_jax/planning/costs.py",
        (
            "(jnp.concatenate([latents[:, 1:], new[:, None]], 1), past[:, 1:]), new",
            "(jnp.concatenate([new[:, None], latents[:, 1:]], 1), past[:, 1:]), new",
            f"{MPC}a_rollout_sees_the_last_latents_and_their_actions",
        ),
        (
            "while latents.shape[1] < memory and",
            "while latents.shape[1] < memory - 1 and",
            f"{MPC}a_rollout_sees_the_last_latents_and_their_actions",
        ),
    ),
    *of(
        "cjepa_jax/planning/mpc.py",
        (
            "np.concatenate([actions[:, done:], np.zeros_like(actions[:, :done])], 1)",
            "actions",
            f"{MPC}it_reaches_its_goals_and_starts_at_the_rest_of_the_plan",
        ),
        (
            "jax.random.fold_in(jax.random.key(self.seed), self.round)",
            "jax.random.key(self.seed)",
            f"{MPC}each_search_has_draws_of_its_own_and_a_seed_repeats_them",
        ),
        (
            "latents(state[0] | state[1], images[:, None])",
            "latents(state[0], images[:, None])",
            f"{MPC}a_world_model_of_an_objectives_functions",
        ),
    ),
    *of(
        "cjepa_jax/evals/gymnasium.py",
        (
            "low + (actions + 1) / 2 * (high - low)",
            "low + actions * (high - low)",
            f"{GYM}actions_reach_the_ends_of_the_box_and_an_episode_that_is_over_stays",
        ),
        (
            "np.clip(actions[e], -1, 1)",
            "actions[e]",
            f"{GYM}actions_reach_the_ends_of_the_box_and_an_episode_that_is_over_stays",
        ),
        (
            "(self.native(each) - self.mean) / self.deviation",
            "self.native(each)",
            f"{GYM}a_world_model_plans_in_the_units_of_its_data",
        ),
        (
            'info.get("is_success", terminated)',
            'info.get("is_success", False)',
            f"{GYM}success_is_the_environments_word",
        ),
        (
            'info.get("is_success", terminated)',
            "terminated",
            f"{GYM}actions_reach_the_ends_of_the_box_and_an_episode_that_is_over_stays",
        ),
        ("np.flatnonzero(~over)", "range(len(envs))", f"{GYM}success_is_the_environments_word"),
        (
            '"tasks of a world with actions", SPLITS["test"], i)',
            '"tasks of a world with actions", SPLITS["test"], 0)',
            f"{GYM}tasks_follow_from_the_seed_and_frames_are_those_that_the_model_saw",
        ),
        (
            "(index.offsets + index.lengths - 1)",
            "index.offsets",
            f"{GYM}a_goal_is_the_environments_or_that_of_a_reset_or_of_a_file",
        ),
        (
            "self._reset(env, seed, self.goal)",
            "self._reset(env, seed)",
            f"{GYM}tasks_follow_from_the_seed_and_frames_are_those_that_the_model_saw",
        ),
    ),
    *of(
        "cjepa_jax/evals/control.py",
        (
            "predict(params, context, units(a))",
            "predict(params, context, a)",
            f"{GYM}a_world_model_plans_in_the_units_of_its_data",
        ),
        ("self.reached.any(1)", "self.reached.all(1)", f"{CONTROL}success_once_and_at_the_end"),
        ("return self.reached[:, -1]", "return self.reached[:, 0]", f"{CONTROL}success_once_and_at_the_end"),
        (
            'seeds.generator(self.seed, "random actions of a task", int(i)) for i in tasks.number',
            'seeds.generator(self.seed, "random actions of a task", i) for i in range(len(tasks.number))',
            f"{CONTROL}random_actions_belong_to_a_task",
        ),
        (
            "one.share(which)[1] > other.share(which)[2]",
            "one.share(which)[0] > other.share(which)[2]",
            f"{CONTROL}wilsons_interval",
        ),
    ),
)

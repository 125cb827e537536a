"""Mutants of causal states: subspaces, their effects and their controls."""

from tests.mutants.mutant import of, tests_of

STATES, SPACES = tests_of("evals/", "causal_states", "subspaces")
CONTROLS = f"{STATES}controls_have_the_rank_and_the_share_of_their_subspace"
OUTPUT = f"{STATES}the_output_is_that_of_ablated_interchanged_and_shifted_tokens"
CACHED = f"{STATES}finished_layers_are_not_measured_again"
ROUNDING = f"{SPACES}a_ratio_of_rounding_errors_is_no_ratio"

CAUSAL = (
    *of(
        "cjepa_jax/evals/subspaces.py",
        ("((other - x) @ u) @ u.T", "(other @ u) @ u.T", f"{SPACES}interventions_change_their_subspace_only"),
        ("some = by > ROUNDING", "some = by > 0", ROUNDING),
        ("np.where(value > ROUNDING, np.inf", "np.where(value > 0, np.inf", ROUNDING),
        ("np.square(u.T @ v)", "np.abs(u.T @ v)", f"{SPACES}alignment_of_known_subspaces_and_of_chance"),
        ("TILT = 16.0", "TILT = 4.0", CONTROLS),
        (
            "np.flatnonzero(y == c), (y == c).sum()",
            "len(y), (y == c).sum()",
            f"{SPACES}the_bootstrap_keeps_every_class",
        ),
        (
            "own, other = sampled[:, 0], sampled[:, 1:].max(1)",
            "own, other = sampled[:, 0], sampled[:, 1:].min(1)",
            f"{SPACES}intervals_are_those_of_known_means",
        ),
        ("if np.quantile(below, 0.025) <= ROUNDING:", "if False:", f"{SPACES}shuffled_labels_find_nothing"),
    ),
    *of(
        "cjepa_jax/evals/causal_layer.py",
        ("share = subspaces.share_of_variance(u, self.covariance)", "share = 0.0", CONTROLS),
        ("self.extract(name, rng.permutation(y))", "self.extract(name, y)", f"{STATES}what_is_used_is_found"),
        (
            "subspaces.random_basis(self.rng, self.width, u.shape[1])",
            "subspaces.random_basis(self.rng, self.width, self.study.rank)",
            f"{STATES}interchange_has_random_subspaces_of_each_extractors_rank",
        ),
        (
            "self.extract(name, self.clips.y, order[start::2])",
            'self.extract("means", self.clips.y, order[start::2])',
            f"{STATES}halves_are_of_the_first_controlled_extractor",
        ),
    ),
    *of(
        "cjepa_jax/evals/layers.py",
        ("u = np.zeros_like(u) if aim is None else u", "u = np.ones_like(u)", OUTPUT),
        ("own + _filled(", "own - _filled(", OUTPUT),
    ),
    *of(
        "cjepa_jax/evals/causal_states.py",
        ("how = study.features, study.output", "how = ()", CACHED),
        ("name in names and name != own", "name in names", f"{STATES}a_variable_is_not_its_own_nuisance"),
    ),
)

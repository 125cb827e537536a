"""Mutants of the contract for kinds of scenes, and of world models."""

from tests.mutants.mutant import of, tests_of

(KINDS,) = tests_of("data/", "kinds")
STACK, ENCODER = tests_of("models/", "transformer", "encoder")
CONDITION = f"{STACK}a_fresh_condition_changes_no_bit_and_a_learned_one_follows_its_formula"
LATER = f"{STACK}what_comes_later_changes_no_bit_of_what_was_before"
SEGMENTS = f"{STACK}with_segments_a_token_sees_its_own_segment_up_to_its_time"
LEVELS = f"{STACK}levels_are_the_outputs_of_blocks_side_by_side_each_with_its_norm"

WORLD = (
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
            "time[None, :] <= time[:, None]",
            "time[None, :] < time[:, None]",
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
)

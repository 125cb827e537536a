"""Mutants of the networks."""

from tests.mutants.mutant import of, tests_of

GOLDEN = tests_of("", "three_steps")[0] + "three_steps_are_the_documents"
PLAIN, CROSS = f"{GOLDEN}[plain]", f"{GOLDEN}[cross-drop_tokens]"
(POSITIONS,) = tests_of("", "positions")
TOKENS, ROWS, ENCODER, PREDICTOR = tests_of("models/", "tokenizers", "packing", "encoder", "predictor")
ATTENTION, PLACES, PRODUCT, SLOTS, DECODER = tests_of(
    "models/", "attention", "position_encoding", "matmul", "slots", "decoder"
)
RANKS = f"{PREDICTOR}rank_is_lowest_patch_then_area_then_centroid"

MODELS = (
    *of(
        "cjepa_jax/models/tokenizers.py",
        (
            "SCALE = 255.0",
            "SCALE = 256.0",
            f"{TOKENS}pixels_are_normalised_by_the_stated_constants",
        ),
        (
            "video.astype(jnp.float32) / scale",
            "video.astype(jnp.float32) / SCALE",
            f"{TOKENS}values_of_other_channels_have_their_own_scale",
        ),
        (
            "- jnp.asarray(mean)) / jnp.asarray(std)",
            "- jnp.asarray(mean)) * jnp.asarray(std)",
            f"{TOKENS}pixels_are_normalised_by_the_stated_constants",
        ),
        (
            "MEAN = (0.485, 0.456, 0.406)",
            "MEAN = (0.406, 0.456, 0.485)",
            f"{TOKENS}pixels_are_normalised_by_the_stated_constants",
        ),
        ("tubelet = 1 if frames == 1 else tubelet", "tubelet = tubelet", f"{TOKENS}tokens_match_loops"),
        (
            "x.transpose((0, 1, 3, 5, 2, 4, 6, 7)).reshape(batch",
            "x.transpose((0, 1, 3, 5, 4, 2, 6, 7)).reshape(batch",
            f"{TOKENS}tokens_match_loops",
        ),
        (
            "x.transpose((0, 1, 3, 5, 2, 4, 6, 7)).reshape(batch",
            "x.transpose((0, 1, 5, 3, 2, 4, 6, 7)).reshape(batch",
            f"{TOKENS}tokens_match_loops",
        ),
        (
            "x.transpose((0, 1, 4, 2, 5, 3, 6, 7))",
            "x.transpose((0, 1, 4, 3, 5, 2, 6, 7))",
            f"{TOKENS}boxes_become_the_video_again",
        ),
        (
            "jnp.repeat(video, self.tubelet, axis=1)",
            "jnp.pad(video, [(0, 0), (0, self.tubelet - 1), *[(0, 0)] * 3])",
            f"{PLACES}an_image_is_a_still_tubelet_to_the_parameters_of_clips",
        ),
    ),
    *of(
        "cjepa_jax/positions.py",
        (
            "angle = positions[:, None] / 10000.0 ** (np.arange(half)",
            "angle = positions[:, None] / 1000.0 ** (np.arange(half)",
            f"{POSITIONS}axis_code_is_the_formula",
        ),
        (
            "[np.sin(angle), np.cos(angle), np.zeros",
            "[np.cos(angle), np.sin(angle), np.zeros",
            f"{POSITIONS}axis_code_is_the_formula",
        ),
        (
            "time_width = 0 if times == 1 else 2 * (width // 8)",
            "time_width = 2 * (width // 8)",
            f"{POSITIONS}images_split_the_width_between_rows_and_columns",
        ),
        (
            "row_width = 2 * ((width - time_width) // 4)",
            "row_width = 2 * (width // 4)",
            f"{POSITIONS}tokens_are_time_major_then_row_major",
        ),
        (
            "axis_code(r, row_width), axis_code(c,",
            "axis_code(c, row_width), axis_code(r,",
            f"{POSITIONS}tokens_are_time_major_then_row_major",
        ),
        ("np.repeat(angle, 2, axis=1)", "np.tile(angle, 2)", f"{POSITIONS}rotations_are_those_of_v_jepa_2_1_and_2"),
        (
            "np.tile([-1.0, 1.0], width // 2)",
            "np.tile([1.0, -1.0], width // 2)",
            f"{POSITIONS}rotations_are_those_of_v_jepa_2_1_and_2",
        ),
        (
            "share = 2 * (width // 3 // 2)",
            "share = 2 * (width // 6 // 2)",
            f"{POSITIONS}heads_are_split_among_times_rows_and_cols",
        ),
        ("(ref - 1) / max(n - 1, 1)", "ref / n", f"{POSITIONS}a_reference_grid_scales_rows_and_cols_but_not_times"),
        (
            "(np.arange(new) + 0.5) * old / new - 0.5, 0)",
            "np.arange(new) * old / new, 0)",
            f"{POSITIONS}a_table_is_resized_linearly_in_what_is_linear",
        ),
        ("a: float = -0.75", "a: float = -0.5", f"{POSITIONS}a_table_is_resized_as_torch_does"),
        ("np.clip(taps, 0, old - 1)", "taps % old", f"{POSITIONS}a_table_is_resized_as_torch_does"),
    ),
    *of(
        "cjepa_jax/models/encoder.py",
        (
            "x = jnp.where(keep[..., None], x, 0)",
            "x = jnp.where(keep[..., None], 0, x)",
            f"{ENCODER}zeroed_input_keeps_the_whole_sequence_with_zeros_at_hidden_places",
        ),
        ("self.depth or size.depth,", "size.depth,", f"{ENCODER}whole_scenes_match_float64"),
        (
            "stack(packed, segment, None, rotation)",
            "stack(packed, None, None, rotation)",
            f"{ENCODER}several_scenes_in_a_row_equal_separate_rows",
        ),
        ("packing.of_slots(rotation, rows)", "rotation[None, : packed.shape[1]]", f"{PLACES}rotations_match_float64"),
        ("units=size.hidden,", "", PLAIN),
        ("size.width // size.heads", "size.width // 2", f"{PLACES}rotations_match_float64"),
    ),
    *of(
        "cjepa_jax/models/predictor.py",
        ("jnp.argmax(patches, axis=-1),", "-jnp.argmax(patches, axis=-1),", RANKS),
        ("patches.sum(-1),  # area", "-patches.sum(-1),  # area", RANKS),
        ("jnp.where(patches, index, 0).sum(-1)", "-jnp.where(patches, index, 0).sum(-1)", RANKS),
        (
            "jnp.where(patches, index * index, 0).sum(-1)",
            "-jnp.where(patches, index * index, 0).sum(-1)",
            f"{PREDICTOR}ranks_of_a_known_scene",
        ),
        ("for key in reversed(keys):", "for key in keys:", RANKS),
        ("(before & removed[:, None, :]).sum(-1)", "before.sum(-1)", RANKS),
        (
            "order &= removed[..., None]",
            "order &= object_patches.any(-1)[..., None]",
            f"{PREDICTOR}an_object_that_stays_says_nothing_at_hidden_tokens_that_it_touches",
        ),
        (
            "masked = mask_token + covers @ object_embedding.astype(self.dtype)",
            "masked = mask_token + jnp.sign(covers) @ object_embedding.astype(self.dtype)",
            f"{PREDICTOR}a_mask_token_is_vector_plus_position_plus_the_sum_of_its_objects",
        ),
        (
            "masked = mask_token + covers",
            "masked = covers",
            f"{PREDICTOR}a_mask_token_is_vector_plus_position_plus_the_sum_of_its_objects",
        ),
        ("x = position_encoding.add(self, x.astype(jnp.float32), grid)", "x = x.astype(jnp.float32)", PLAIN),
        (
            "jnp.where(kind == 0, 0, 3 - kind)",
            "kind",
            f"{PREDICTOR}cross_attention_goes_from_masked_to_context_and_back",
        ),
        (
            "jnp.where(kind == 0, 0, 3 - kind)",
            "3 - kind",
            f"{PREDICTOR}tokens_that_are_neither_seen_nor_predicted_take_no_part",
            "A token that takes no part gets the id 3 as a key, which no query has.",
        ),
        ("return to_predict, (kind", "return kind, (kind", CROSS),
        (
            "(context | hidden).astype(jnp.int32)",
            "hidden.astype(jnp.int32)",
            f"{PREDICTOR}tokens_that_are_neither_seen_nor_predicted_take_no_part",
        ),
        (
            "jnp.where(~context if hidden is None else hidden, 2, 0)",
            "jnp.where(~context, 2, 0)",
            f"{PREDICTOR}tokens_that_are_neither_seen_nor_predicted_take_no_part",
        ),
        ("self.width // self.heads)", "self.width // 2)", f"{PLACES}the_predictor_turns_by_the_grid_and_adds_nothing"),
    ),
    *of(
        "cjepa_jax/models/attention.py",
        ("q.shape[-1] ** -0.5", "q.shape[-1] ** -1.0", f"{ATTENTION}everything_sees_everything_without_segments"),
        (
            "weights = jnp.where(visible.any(-1, keepdims=True), weights, 0.0)",
            "weights = weights",
            f"{ATTENTION}tokens_see_their_own_segment_only",
        ),
        (
            "jnp.where(mask.any(-1)[..., None], out, 0)",
            "out",
            f"{ATTENTION}what_cudnn_is_asked_for_is_the_same_function",
        ),
        (
            "visibility(segment, k_segment, times, time)[:, None] if limited",
            "visibility(segment, k_segment, times, time)[:, None] if False",
            f"{ATTENTION}chunks_of_queries_are_the_same_function",
        ),
        (
            "k_segment, times, time)[:, None] if limited",
            "k_segment, None if time is None else 0 * times + 99, time)[:, None] if limited",
            f"{ATTENTION}chunks_of_queries_see_no_later_time",
        ),
        (
            "@functools.partial(jax.checkpoint, prevent_cse=False)",
            "@functools.partial(lambda f: f)",
            f"{ATTENTION}memory_of_chunks_grows_with_the_tokens_not_with_their_square",
        ),
        ("queries % 2 == keys % 2 == 0", "queries % 2 == keys % 2", f"{ATTENTION}the_kernel_suits_the_device"),
        ("width % 8 == 0 and width <= 128", "width % 8 == 0", f"{ATTENTION}the_kernel_suits_the_device"),
        ("min(queries, keys) >= BLOCK", "max(queries, keys) >= BLOCK", f"{ATTENTION}the_kernel_suits_the_device"),
    ),
    *of(
        "cjepa_jax/models/visibility.py",
        ("& (q_segment != 0)[:, :, None]", "& True", f"{ATTENTION}tokens_see_their_own_segment_only"),
        (
            "(q_segment[:, :, None] == k_segment[:, None, :])",
            "(q_segment[:, :, None] >= k_segment[:, None, :])",
            f"{ATTENTION}tokens_see_their_own_segment_only",
        ),
    ),
    *of(
        "cjepa_jax/models/layers.py",
        (
            '"exact": functools.partial(_gelu, approximate=False)',
            '"exact": functools.partial(_gelu, approximate=True)',
            PLAIN,
        ),
        (
            '"tanh": functools.partial(_gelu, approximate=True)',
            '"tanh": functools.partial(_gelu, approximate=False)',
            CROSS,
        ),
        ("self.units or 4 * x.shape[-1]", "4 * x.shape[-1]", PLAIN),
        ("self.units or 4 * x.shape[-1]", "self.units or 2 * x.shape[-1]", PLAIN),
        (
            "q, k = rotate(q, rotation), rotate(k, rotation)",
            "q = rotate(q, rotation)",
            f"{PLACES}rotations_match_float64",
        ),
        (
            "attention(rotate(q, rotation), rotate(k, rotation), v, x_segment, y_segment)",
            "attention(rotate(q, rotation), k, v, x_segment, y_segment)",
            f"{PLACES}cross_attention_turns_queries_and_keys_like_self_attention",
        ),
        (
            "attention(rotate(q, rotation), rotate(k, rotation), v, x_segment, y_segment)",
            "attention(rotate(q, rotation), rotate(k, rotation), v, y_segment, x_segment)",
            f"{PLACES}cross_attention_turns_queries_and_keys_like_self_attention",
        ),
    ),
    *of(
        "cjepa_jax/models/transformer.py",
        (
            "LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)(x)",
            "LayerNorm(dtype=self.dtype, name=name)(x)",
            f"{PLACES}rotations_match_float64",
        ),
        (
            'LayerNorm(epsilon=self.epsilon, dtype=jnp.float32, name="norm")(x)',
            'LayerNorm(dtype=jnp.float32, name="norm")(x)',
            f"{PLACES}rotations_match_float64",
        ),
        ('name="mlp")(second(self._norm("norm2", x)))', 'name="mlp")(second(self._norm("norm1", x)))', PLAIN),
        (
            '"dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims',
            '"dots": jax.checkpoint_policies.everything_saveable',
            f"{ENCODER}what_remat_computes_again",
        ),
    ),
    *of(
        "cjepa_jax/models/packing.py",
        (
            "return _move(gradient, back, source), None, None",
            "return 2 * _move(gradient, back, source), None, None",
            f"{ROWS}gradients_equal_those_of_plain_indexing",
        ),
        ('mode="fill", fill_value=0)', 'mode="clip")', f"{ROWS}scatter_puts_tokens_back_and_zeros_elsewhere"),
        (
            "rows.index.shape[-1]) % table.shape[0], axis=0)",
            'rows.index.shape[-1]), axis=0, mode="clip")',
            f"{PLACES}rotations_match_float64",
        ),
    ),
    *of(
        "cjepa_jax/models/position_encoding.py",
        (
            "own * rotation[..., 0, :] + swapped * rotation[..., 1, :]",
            "own * rotation[..., 0, :] - swapped * rotation[..., 1, :]",
            f"{PLACES}rotations_match_float64",
        ),
        (
            "return x + jax.lax.stop_gradient(_resized(table, stored, grid))",
            "return x + _resized(table, stored, grid)",
            f"{PLACES}a_table_starts_as_the_sincos_codes_of_its_grid_and_has_no_gradient",
        ),
        ("return x + positions.sincos(grid, x.shape[-1])", "return x", PLAIN),
    ),
    *of(
        "cjepa_jax/models/matmul.py",
        (
            '_einsum(f"{out},{right}->{left}", gradient, b)',
            '_einsum(f"{out},{right}->{left}", 2 * gradient, b)',
            f"{PRODUCT}values_and_gradients_match_einsum",
        ),
        ("to_b.astype(b_type.dtype)", "2 * to_b.astype(b_type.dtype)", f"{PRODUCT}values_and_gradients_match_einsum"),
        (
            "gradient = gradient.astype(dtype)\n    to_a",
            "to_a",
            f"{PRODUCT}every_product_of_the_gradient_is_narrow",
        ),
    ),
    *of(
        "cjepa_jax/models/slots.py",
        (
            "jax.nn.softmax(logits, axis=1)",
            "jax.nn.softmax(logits, axis=2)",
            f"{SLOTS}slot_attention_is_algorithm_1",
        ),
        ("logits / jnp.sqrt(width)", "logits / width", f"{SLOTS}slot_attention_is_algorithm_1"),
        ("share / share.sum(-1, keepdims=True)", "share", f"{SLOTS}slot_attention_is_algorithm_1"),
        (
            "slots = slots + mlp(norm_mlp(slots))",
            "slots = mlp(norm_mlp(slots))",
            f"{SLOTS}slot_attention_is_algorithm_1",
        ),
        (
            "jax.nn.softmax(x[..., -1], axis=1)",
            "jax.nn.softmax(x[..., -1], axis=2)",
            f"{SLOTS}masks_share_every_token_out_and_patches_give_it_away",
        ),
        (
            "jnp.argmax(masks, axis=1)",
            "jnp.argmin(masks, axis=1)",
            f"{SLOTS}masks_share_every_token_out_and_patches_give_it_away",
        ),
    ),
    *of(
        "cjepa_jax/models/decoder.py",
        (
            "jnp.where(context[..., None], x.astype(jnp.float32), mask_token)",
            "jnp.where(context[..., None], mask_token, x.astype(jnp.float32))",
            f"{DECODER}hidden_places_are_painted_from_the_mask_token_alone",
        ),
        (
            "mask_token) + sincos(grid, self.width)",
            "mask_token)",
            f"{DECODER}hidden_places_are_painted_from_the_mask_token_alone",
        ),
    ),
)

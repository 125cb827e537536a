"""Mutants of exports, imported weights and configs."""

from tests.mutants.mutant import of, tests_of

BUNDLE, MODELING, EXPORTED = tests_of("export/", "bundle", "modeling", "other_layouts")
(LAYOUTS,) = tests_of("weights/", "canonical")
HUGGING = tests_of("weights/", "huggingface")[0] + "hugging_faces_ijepa_layer_by_layer"
(FOLDERS,) = tests_of("export/", "huggingface")
(HUB,) = tests_of("weights/", "hub")
CONFIG, PINNED = tests_of("", "configuration/check", "pinned")
OUTPUTS = f"{MODELING}outputs_are_those_of_our_networks"
VITL = f"{PINNED}vitl_is_the_documents_table_and_ours_and_nothing_else"

EXPORTS = (
    *of(
        "cjepa_jax/weights/canonical.py",
        (
            "transpose(4, 3, 0, 1, 2)",
            "transpose(4, 3, 0, 2, 1)",
            f"{LAYOUTS}the_patch_embedding_is_the_same_linear_map",
        ),
        ('array.T if leaf == "kernel" else array', "array", f"{LAYOUTS}names_and_shapes_are_those_of_the_family"),
        (
            "np.moveaxis(weight, (0, 1), (-1, -2))",
            "np.moveaxis(weight, (0, 1), (-2, -1))",
            f"{LAYOUTS}an_encoder_goes_there_and_back",
        ),
        (
            "arrays = [_read(tensors, layers[i]) for i in range(depth)]",
            "arrays = [_read(tensors, layers[i]) for i in reversed(range(depth))]",
            f"{LAYOUTS}an_encoder_goes_there_and_back",
        ),
        ('"scale" if "norm" in layer else "kernel"', '"kernel"', f"{LAYOUTS}an_encoder_goes_there_and_back"),
    ),
    *of(
        "cjepa_jax/weights/name_maps.py",
        (
            'QKV = ("query", "key", "value")',
            'QKV = ("key", "query", "value")',
            HUGGING,
        ),
        ('"layernorm_after.": "norm2."', '"layernorm_after.": "norm1."', HUGGING),
        (
            "key=lambda item: -len(item[1])",
            "key=lambda item: len(item[1])",
            f"{FOLDERS}ijepa_models_compute_the_same_and_are_read_back_to_the_bit",
        ),
    ),
    *of(
        "cjepa_jax/export/huggingface.py",
        (
            'model.encoder.get("epsilon", 1e-6),\n        "qkv_bias"',
            '1e-6,\n        "qkv_bias"',
            f"{FOLDERS}ijepa_models_compute_the_same_and_are_read_back_to_the_bit",
        ),
        (
            '("position_grid", (), ()),',
            "",
            f"{FOLDERS}what_they_cannot_express_is_one_line_with_the_setting",
        ),
        (
            'if kind == "vjepa2" and not part and',
            'if kind == "vjepa2" and',
            f"{FOLDERS}an_encoder_of_clips_is_written_alone",
        ),
    ),
    *of(
        "cjepa_jax/weights/hub.py",
        (
            "in ONLINE and not library",
            "in (*ONLINE, '') and not library",
            f"{HUB}nothing_is_downloaded_unless_asked_and_a_cached_revision_needs_no_network",
        ),
        ("if found.hexdigest() != digest:", "if False:", f"{HUB}a_damaged_or_incomplete_cache_is_one_line"),
        ("private=True", "private=False", f"{HUB}an_export_of_an_address_names_it_and_a_push_makes_a_private_commit"),
    ),
    *of(
        "cjepa_jax/loading/init_from.py",
        (
            'return hub.read(known["source"], digest=known.get("digest", ""), reading=reading)',
            "pass",
            f"{HUB}a_run_keeps_the_commit_of_a_branch_that_moves",
        ),
    ),
    *of(
        "cjepa_jax/export/bundle.py",
        (
            "np.ascontiguousarray(arrays[name], np.float32) for name in sorted(arrays)",
            "np.ascontiguousarray(arrays[name], np.float16) for name in sorted(arrays)",
            f"{BUNDLE}an_export_is_read_back_bit_for_bit_and_exported_again_to_the_same_bytes",
        ),
        (
            'fields["encoder"] = {"mean": MEAN, "std": STD} | {',
            'fields["encoder"] = {',
            f"{BUNDLE}colours_that_no_config_states_are_written_as_the_usual_ones",
        ),
        (
            "if key not in usual or usual[key] != value",
            "if key not in usual",
            f"{BUNDLE}other_channels_and_another_scale_survive",
        ),
        (
            'key in ("path", "source", "init_from")',
            'key in ("path", "source")',
            f"{BUNDLE}a_description_tells_no_folders_of_this_disk",
        ),
        (
            "require_free(out, overwrite)  # check that it is still free",
            "pass",
            f"{BUNDLE}a_folder_appears_whole_or_not_at_all",
        ),
    ),
    *of(
        "cjepa_jax/export/modeling_cjepa.py",
        ("return torch.where(some, out, 0)", "return out", "tests/export/test_modeling.py"),
        ("clip.float() / self.scale - self.mean.float()", "clip.float() / 256 - self.mean.float()", OUTPUTS),
        ("boxes.permute((0, 1, 3, 5, 7, 2, 4, 6))", "boxes.permute(0, 1, 3, 5, 7, 2, 6, 4)", OUTPUTS),
        ("row & column, row ^ column", "row & column, row | column", f"{OUTPUTS}_in_every_form"),
        (
            "hidden & ~hidden.all(1, keepdim=True)",
            "hidden",
            f"{MODELING}where_nothing_would_stay_visible_nothing_is_hidden",
        ),
        ("_mean(full - change, ~hidden)", "_mean(full + change, ~hidden)", OUTPUTS),
        ("full = self.encode(clip, target=self.target is not None)", "full = self.encode(clip)", OUTPUTS),
        ("for key in reversed(keys):", "for key in keys:", f"{MODELING}ranks_are_ours"),
        ('"tanh" if options.get("gelu") == "tanh" else "none"', '"none"', OUTPUTS),
        (
            "x.repeat(1, 2) if tile else x.repeat_interleave(2, 1)",
            "x.repeat_interleave(2, 1)",
            f"{MODELING}rotations_are_the_published_ones",
        ),
        (
            "(patches & removed[..., None]).to(masked), order.to(masked)",
            "patches.to(masked), order.to(masked)",
            f"{MODELING}an_object_that_stays_says_nothing_at_hidden_tokens_that_it_touches",
            "of an object that stays the rank is K, which is no place of an embedding unless K is below M_max",
        ),
        (
            "units=4 * width, cross=cross)\n        self.cross",
            "units=2 * width, cross=cross)\n        self.cross",
            OUTPUTS,
        ),
    ),
    *of(
        "cjepa_jax/export/other_layouts.py",
        (
            '"mlp_ratio": mlp_ratio(size.width, size.hidden)',
            '"mlp_ratio": 4.0',
            f"{EXPORTED}timm_gets_its_names_and_shapes_and_a_config",
        ),
        ('"class_token": False', '"class_token": True', f"{EXPORTED}timm_gets_its_names_and_shapes_and_a_config"),
        (
            '"norm": "predictor_norm"',
            '"norm": "predictor_norm2"',
            f"{EXPORTED}ijepa_gets_its_names_and_shapes_and_a_predictor_that_has_its_form",
        ),
    ),
)
CONFIGS = (
    *of(
        "configs/vitl.py",
        ("weight_decay=0.05,", "weight_decay=0.04,", VITL),
        ("causal_weight=0.5,  # lambda", "causal_weight=0.05,  # lambda", VITL),
        ("warmup_epochs=40.0", "warmup_epochs=10.0", VITL),
        ('ema_kind="cosine"', 'ema_kind="linear"', VITL),
        ('sigreg_kind="kl"', 'sigreg_kind="epps_pulley"', VITL),
        ("mean=(0.485, 0.456, 0.406)", "mean=(0.5, 0.5, 0.5)", VITL),
        ('type="cjepa_jax.masks.objects:draw"', 'type="cjepa_jax.masks.displaced:in_place"', VITL),
        ("b2=0.95", "b2=0.999", VITL),
        ("ema=(0.996, 1.0)", "ema=(0.99, 1.0)", VITL),
        ('causal_tokens="remaining"', 'causal_tokens="context"', VITL),
        ("epochs=300", "epochs=600", VITL),
        ("eps=1e-8,", "eps=1e-6,", VITL),
        ("anchor=0,", "anchor=1,", VITL),
    ),
    *of(
        "configs/vitl_natural.py",
        ("config.train.epochs = 600", "config.train.epochs = 300", f"{PINNED}a_variant_changes_this_and_nothing_else"),
    ),
    *of(
        "configs/baselines/ijepa.py",
        ("context_scale=(0.85, 1.0)", "context_scale=(0.75, 1.0)", f"{PINNED}a_variant_changes_this_and_nothing_else"),
        ("target_scale=(0.15, 0.2)", "target_scale=(0.05, 0.2)", f"{PINNED}a_variant_changes_this_and_nothing_else"),
    ),
    *of(
        "configs/baselines/vjepa.py",
        ("(0.998, 1.0)", "(0.996, 1.0)", f"{PINNED}a_variant_changes_this_and_nothing_else"),
        (
            "kinds=((8, 0.15), (2, 0.7))",
            "kinds=((8, 0.15), (2, 0.5))",
            f"{PINNED}a_variant_changes_this_and_nothing_else",
        ),
    ),
    *of(
        "configs/baselines/mae.py",
        ("ratio=0.75)", "ratio=0.9)", f"{PINNED}the_mask_of_every_config"),
    ),
    *of(
        "cjepa_jax/configuration/check.py",
        ("if values[size] % patch:", "if False:", f"{CONFIG}impossible_values_are_refused_in_one_line"),
        (
            "0 <= v[0] <= v[1] <= 1",
            "0 <= v[0] <= 1 and 0 <= v[1] <= 1",
            f"{CONFIG}impossible_values_are_refused_in_one_line",
        ),
        ("not math.isfinite(value):", "math.isnan(value):", f"{CONFIG}impossible_values_are_refused_in_one_line"),
        ("value[-1] == 1 and", "value[-1] <= 1 and", f"{CONFIG}impossible_values_are_refused_in_one_line"),
    ),
)

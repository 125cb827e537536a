"""Mutants of runs, checkpoints and devices."""

from tests.mutants.mutant import of, tests_of

SHARDING, CHECKPOINT, CHECKSUMS, DAMAGE, MANIFEST, TRAIN = tests_of(
    "", "sharding", "runtime/checkpoint", "runtime/checksums", "runtime/damage", "runtime/run_manifest", "train"
)
ALARMS, WINDOW, TIMING, API = tests_of("", "runtime/collapse_monitor", "runtime/accumulator", "runtime/timing", "api")
EXPERIMENT, TREES, MONITORS = tests_of("", "experiment", "runtime/trees", "monitors/schedule")
CALLED = f"{MONITORS}they_are_called_at_their_steps_at_log_lines_or_at_the_end"
LIVES = f"{SHARDING}parameters_target_and_optimiser_live_alike_and_counters_everywhere"
FILES = f"{DAMAGE}damage_in_any_file_is_found_and_the_older_checkpoint_serves"
ARRAYS = f"{DAMAGE}checksums_of_arrays_tell_round_values_apart"
ALIKE = f"{CHECKSUMS}they_are_the_same_by_hand_on_the_host_and_on_devices"
RATE = f"{EXPERIMENT}rates_follow_the_batch_and_the_epochs"
PARTS = f"{EXPERIMENT}the_parts_are_the_configs"

RUNS = (
    *of(
        "cjepa_jax/sharding.py",
        ('(r"mlp/up/kernel$", ("fsdp", "tensor"))', '(r"mlp/up/kernel$", ("tensor", "fsdp"))', LIVES),
        (
            '(r"(attention|cross)/out/kernel$", ("tensor", "fsdp"))',
            '(r"(attention|cross)/out/kernel$", ("fsdp", "tensor"))',
            LIVES,
        ),
        ('(r"mlp/down/kernel$", ("tensor", "fsdp"))', '(r"mlp/down/kernel$", ("fsdp", "tensor"))', LIVES),
        ('(r"kernel$", ("fsdp", None))', '(r"kernel$", (None, "fsdp"))', LIVES),
        (
            'return mesh.shape["data"] * mesh.shape["fsdp"]',
            'return mesh.shape["data"]',
            f"{SHARDING}each_device_holds_its_scenes_and_its_rows",
        ),
        (
            "NamedSharding(mesh, PartitionSpec(SCENES))",
            'NamedSharding(mesh, PartitionSpec("data"))',
            f"{SHARDING}each_device_holds_its_scenes_and_its_rows",
        ),
        (
            "for pattern, axes in rules:\n        if re.search",
            "for pattern, axes in ():\n        if re.search",
            f"{SHARDING}own_rules_come_first_and_count_from_the_last_axis",
        ),
        (
            "spec = [None] * (len(shape) - len(axes)) + list(axes)",
            "spec = list(axes) + [None] * (len(shape) - len(axes))",
            f"{SHARDING}own_rules_come_first_and_count_from_the_last_axis",
        ),
        ("parts = data * fsdp * microbatches", "parts = data * fsdp", f"{SHARDING}layouts_that_do_not_fit_are_refused"),
        ('split.remove("fsdp")', "split.clear()", f"{SHARDING}what_fsdp_does_not_divide_stays_whole"),
    ),
    *of(
        "cjepa_jax/runtime/checkpoint.py",
        (
            "checkpoint_managers.LatestN(keep)",
            "checkpoint_managers.LatestN(keep + 1)",
            f"{CHECKPOINT}keeps_the_newest_and_the_best",
        ),
        (
            "return number if isinstance(number, float) and math.isfinite(number) else -math.inf",
            "return -number if isinstance(number, float) and math.isfinite(number) else -math.inf",
            f"{CHECKPOINT}keeps_the_newest_and_the_best",
        ),
        (
            "keep_checkpoints_without_metrics=False",
            "keep_checkpoints_without_metrics=True",
            f"{CHECKPOINT}keeps_the_newest_only_when_nothing_is_best",
        ),
        (
            "for step in reversed(self.steps()):",
            "for step in self.steps():",
            f"{CHECKPOINT}state_comes_back_bit_for_bit_from_abstract_leaves_too",
        ),
        ("self._together(step, lambda: self._verify(step))", "pass", FILES),
        (
            "if not self._read_only:\n                    self._set_aside(bad)",
            "if True:\n                    self._set_aside(bad)",
            f"{DAMAGE}reading_only_changes_nothing",
        ),
        ("[: len(saved)] != saved).any(0)", "[: len(saved)] != saved).all(0)", ARRAYS),
        ("if altered.size:", "if False:", ARRAYS),
        (
            "problems = trees.differences(saved, wanted)",
            "problems = []",
            f"{CHECKPOINT}another_model_is_refused_with_every_difference",
        ),
        (
            "if step in self._manager.all_steps():\n            return",
            "if False:\n            return",
            f"{CHECKPOINT}a_step_is_saved_once",
        ),
        (
            "or codes - DAMAGE:",
            "or codes:",
            f"{DAMAGE}damaged_metrics_of_a_checkpoint_are_damage_like_any_other",
        ),
        ("manifest.seal(folder, self._saving)", "pass", FILES),
        ("math.prod(leaf.shape) * leaf.dtype.itemsize", "math.prod(leaf.shape)", f"{CHECKPOINT}size"),
    ),
    *of(
        "cjepa_jax/runtime/checksums.py",
        ("bits * (2 * position + 1)", "bits * (2 * position)", ALIKE),
        ("(bits * (2 * position + 1), mixed)", "(bits, mixed)", ALIKE),
        ("(bits * (2 * position + 1), mixed)", "(bits * (2 * position + 1), bits * (2 * position + 1))", ARRAYS),
        ("np.arange(array.size, dtype=np.uint32)", "np.zeros(array.size, np.uint32)", ALIKE),
        ("position * jnp.uint32(length) + jax.lax", "position + jax.lax", ALIKE),
    ),
    *of(
        "cjepa_jax/runtime/run_manifest.py",
        ('if content["step"] != step:', "if False:", f"{DAMAGE}files_that_changed_places_are_found"),
        (
            "sorted(known)[part::parts]",
            "sorted(known)[:1]",
            f"{MANIFEST}sealed_files_are_verified_in_any_number_of_parts",
        ),
        (
            "if before.get(key) != value}",
            "if key not in before}",
            f"{MANIFEST}a_restart_adds_what_has_changed_and_warns_of_data_and_packages",
        ),
        (
            'if field.init and field.name != "path"]',
            "if field.init]",
            f"{MANIFEST}a_copy_has_the_same_fingerprint_and_other_data_another",
        ),
    ),
    *of(
        "cjepa_jax/runtime/trees.py",
        (
            "if lengths[0] != lengths[1]]",
            "if lengths[0] < lengths[1]]",
            f"{TREES}sizes_are_named_by_their_keys",
        ),
    ),
    *of(
        "cjepa_jax/experiment.py",
        ("total=steps,\n        cooldown=", "total=steps + 1,\n        cooldown=", RATE),
        (
            "peak=optim.peak_rate(config.optim, config.train.batch)",
            "peak=optim.peak_rate(config.optim, 256)",
            f"{EXPERIMENT}rates_follow_the_batch_and_the_epochs",
        ),
        (
            "warmup=optim.warmup_steps(config.optim, steps, epoch)",
            "warmup=optim.warmup_steps(config.optim, steps, 1)",
            f"{EXPERIMENT}rates_follow_the_batch_and_the_epochs",
        ),
        (
            "config.train.steps or max(1, round(config.train.epochs * epoch))",
            "max(1, round(config.train.epochs * epoch))",
            f"{EXPERIMENT}explicit_steps_peaks_and_shares_come_first",
        ),
        ("epoch = len(source) / config.train.batch", "epoch = len(source) // config.train.batch", PARTS),
        ('for split in ("train", config.data.eval_split))', 'for split in ("train", "train"))', PARTS),
        (
            "data.make_scenes(config, held_out, *of_model), crop=False)",
            "data.make_scenes(config, held_out, *of_model))",
            PARTS,
        ),
        ("config.train.batch,\n        config.seed,", "config.train.batch,\n        0,", PARTS),
        (
            'build.build(config.objective, "objective", steps=steps, dtype=compute_dtype(config))',
            'build.build(config.objective, "objective", steps=2 * steps, dtype=compute_dtype(config))',
            RATE,
        ),
        (
            "microbatches=accumulate",
            "microbatches=1",
            f"{EXPERIMENT}accumulated_steps_take_microbatches",
        ),
    ),
    *of(
        "cjepa_jax/runtime/loop.py",
        (
            "self.step % self.config.checkpoint.every == 0 or scores or self.step == start + 1 or stop",
            "self.step % self.config.checkpoint.every == 0 or scores or self.step == start + 1",
            f"{TRAIN}everything_is_in_the_folder",
            "the last step has a probe, whose scores are not empty; signals: tests/runtime/test_preemption.py",
        ),
        (
            "if self.step % self.config.log.every == 0 or stop:",
            "if self.step % self.config.log.every == 1 or stop:",
            f"{TRAIN}everything_is_in_the_folder",
        ),
    ),
    *of(
        "cjepa_jax/monitors/schedule.py",
        ("self._every and step % self._every == 0", "self._every and step % self._every == 1", CALLED),
        ("step == steps or bool", "bool", CALLED),
        (
            "numbers is None or not np.isfinite(numbers).all()",
            "numbers is None",
            f"{MONITORS}anything_but_finite_numbers_is_one_line",
        ),
    ),
    *of(
        "cjepa_jax/runtime/collapse_monitor.py",
        ("LEAST_STD * first", "0.1 * LEAST_STD * first", f"{ALARMS}a_hundred_of_each"),
        (
            "if rankme < least and limit >= FEWEST:",
            "if rankme < least:",
            f"{ALARMS}two_scenes_have_one_direction_whatever_they_show",
        ),
        ("self._first = self._first or numbers", "self._first = numbers", f"{ALARMS}it_warns_once_per_collapse"),
        ("if sign and not self._ringing:", "if sign:", f"{ALARMS}it_warns_once_per_collapse"),
        (
            'min(LEAST_SHARE * limit, LEAST_RANK * first["rankme"])',
            'max(LEAST_SHARE * limit, LEAST_RANK * first["rankme"])',
            f"{ALARMS}a_low_rank_is_below_both_limits",
        ),
    ),
    *of(
        "cjepa_jax/runtime/accumulator.py",
        (
            '[m for m in metrics if not m["skipped"]] or metrics',
            "metrics",
            f"{WINDOW}means_leave_out_skipped_steps_and_counts_add_up",
        ),
        ("if self._skipped > budget:", "if self._skipped >= budget:", f"{WINDOW}budgets"),
        ("self._replaced > share * max(self._drawn", "self._replaced > share * min(self._drawn", f"{WINDOW}budgets"),
        (
            'np.array(arrays["scene"])',
            'arrays["scene"]',
            f"{WINDOW}the_scenes_of_a_skipped_step_are_named_though_the_loader_reuses_their_memory",
        ),
        (
            "culprits = scene[~np.isfinite(",
            "culprits = scene[np.isfinite(",
            f"{WINDOW}the_scenes_of_a_skipped_step_are_named_though_the_loader_reuses_their_memory",
        ),
    ),
    *of(
        "cjepa_jax/runtime/timing.py",
        ("now - self._since - self._away", "now - self._since", f"{TIMING}laps"),
        ('"eta_s": self._pace * (self._total - step)', '"eta_s": self._pace * self._total', f"{TIMING}laps"),
        (
            "pace if self._laps < 2 else",
            "pace if self._laps < 1 else",
            f"{TIMING}the_remaining_time_is_smoothed_after_the_first_lap",
        ),
        ("self._batch / pace", "1 / pace", f"{TIMING}laps"),
    ),
    *of(
        "cjepa_jax/bench/flops.py",
        (
            "total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left",
            "total += math.prod(equation.outvars[0].aval.shape) * math.prod(left",
            "tests/bench/test_flops.py",
        ),
        ('if equation.primitive.name == "scan" else 1', "if False else 1", "tests/bench/test_flops.py"),
        ("square * (counts**2).sum()", "square * counts.sum() ** 2", "tests/bench/test_flops.py"),
    ),
    *of(
        "cjepa_jax/configuration/seeds.py",
        ("spawn_key=(TAGS[purpose], *words)", "spawn_key=(*words,)", "tests/configuration/test_seeds.py"),
        ("divmod(int(number), 2**32)", "(int(number) % 2**32,)", "tests/configuration/test_seeds.py"),
    ),
    *of(
        "cjepa_jax/api.py",
        (
            "self._models(scenes or len(video))",
            "self._models(len(video))",
            f"{API}one_compilation_for_each_shape",
        ),
        (
            "base.pool(full - change, ~gone)",
            "base.pool(full - change, gone)",
            f"{API}intervene_is_what_the_evaluation_asks",
        ),
        (
            "full = (model.target or model.encode)(video) if self._foresees",
            "full = model.encode(video) if self._foresees",
            f"{API}intervene_is_what_the_evaluation_asks",
        ),
        (
            "prediction = np.where(gone[..., None], prediction, np.float32(0))",
            "prediction = prediction",
            f"{API}intervene_is_what_the_evaluation_asks",
        ),
        (
            'found.input["anchor"] if anchor is None else anchor',
            "anchor or 0",
            f"{API}what_cannot_be_asked",
        ),
    ),
)

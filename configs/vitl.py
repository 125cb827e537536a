"""Causal-JEPA, ViT-L/16: METHOD, "Hyper-parameters of the reference run".

    python -m cjepa_jax.train --config=configs/vitl.py

Intended hardware: 32 accelerators of 80 GB (the description reports 72 h on 32 A100). It has not been run to its end by
us, so no score is printed here. On one machine, or for a look:

    --config.train.batch=64 --config.train.steps=1000 --config.optim.warmup_share=0.06     a short run
    --config.data.source=cjepa_jax.data.sources.folder:Folder --config.data.path=DIR     your own images and masks
    --config.data.source=cjepa_jax.data.worlds:Shadows    another simulated world

This file is also the schema. Every other config starts from it and changes a few lines, and a key that is not here is
refused. "" and 0 mean "derive it", as each comment says.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0  # every random draw derives from it: same seed, same bits
    config.init_from = ""  # weights to start from: a run, an export, or public ones (I-JEPA, V-JEPA, V-JEPA 2)
    config.dtype = "auto"  # compute: bfloat16 on accelerators, float32 on CPU (parameters are always float32)

    config.train = ConfigDict(
        dict(
            batch=1024,  # scenes per step, over all devices and processes
            epochs=300,  # passes over data.count scenes
            steps=0,  # optimiser steps (0: from epochs)
            accumulate=1,  # microbatches per step, one after the other: memory of one, the gradient of all
            nonfinite_budget=3,  # skipped (non-finite) steps before the run stops
            watchdog=1800.0,  # seconds without a finished step until the run ends itself with 70 (0: never)
            heartbeat=30.0,  # several processes: seconds of silence after which a peer counts as dead
            collapse="warn",  # when the features collapse: warn, or stop
        )
    )
    config.sharding = ConfigDict(
        dict(
            mode="jit",  # or pmap: the same step under jax.pmap, every parameter on every device
            data=0,  # devices among which scenes are divided (0: all that the other two axes leave)
            fsdp=1,  # devices among which parameters and optimiser state are divided, and scenes too
            tensor=1,  # devices among which each layer is divided
            rules=(),  # (regular expression, axis names) pairs that come before the built-in ones
        )
    )
    config.data = ConfigDict(
        dict(
            source="cjepa_jax.data.worlds:Balls",  # module:Class, built with the fields below and options
            path="",  # folder of the source's files (simulated worlds have none)
            size=224,  # pixels, height = width
            frames=1,  # 1: images, more: clips
            count=100_000,  # training scenes (0: all of the source)
            eval_count=2048,  # held-out scenes
            eval_split="eval",  # their split (simulated worlds also have count, colour and layout)
            options=ConfigDict(),  # further keyword arguments of the source
            crop=False,  # joint random crop and flip of image and masks (natural images)
            max_objects=8,  # objects kept per scene, largest first (fewer are padded)
            # The scene under do(remove): zero_pixels, drop_tokens, rerender, none. Controls without the link to the
            # removed objects: rerender_other (others are removed), second_view (nothing is).
            intervened="zero_pixels",
            row_lengths=(0.5, 0.7, 0.85, 1.0),  # room for context tokens, shares of the grid: at most 4 shapes
            pack=0,  # 0: one scene per row of a length in row_lengths. k: rows of k grids, with row counts from it
            workers=4,  # data processes (0: threads only)
            threads=4,  # data threads (per process)
            prefetch=4,  # batches kept ready
            max_replaced=0.001,  # share of unreadable scenes replaced before the run stops
        )
    )
    config.mask = ConfigDict(
        dict(
            type="cjepa_jax.masks.objects:draw",  # module:function, called with the rest of this section
            max_objects=3,  # M_max: objects removed per scene, uniform over 1..M_max
            area=(0.05, 0.40),  # an eligible object's share of the patches, both ends included
            anchor=0,  # video: tubelets at the start that stay visible
        )
    )
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.jepa:Jepa",
            encoder=ConfigDict(
                dict(
                    variant="L/16",  # size and patch (custom sizes: WIDTHxDEPTHxHEADSxHIDDEN)
                    tubelet=2,  # frames per token of a clip
                    gelu="exact",  # or tanh
                    remat="none",  # recomputed in the backward pass: none, dots (all but matrix products), full
                    depth=0,  # blocks (0: the variant's)
                    positions="sincos",  # or, for imported weights: table (a fixed array), rope, rope_tile (V-JEPA 2's)
                    position_grid=(),  # times, rows, cols of the table (rope: rows and cols are scaled to these)
                    epsilon=1e-6,  # of every LayerNorm
                    channels=3,  # RGB, or those of the data, such as 12 bands (docs/DATA.md)
                    scale=255.0,  # values are normalised as (x / scale - mean) / std
                    mean=(0.485, 0.456, 0.406),  # of each channel, after the division by scale
                    std=(0.229, 0.224, 0.225),
                )
            ),
            predictor=ConfigDict(
                dict(
                    depth=6,
                    width=384,
                    heads=8,
                    attention="joint",  # or cross
                    gelu="exact",
                    remat="none",
                    positions="sincos",  # as the encoder's
                    position_grid=(),
                    epsilon=1e-6,
                )
            ),
            prediction_loss="smooth_l1",  # on the token's norm, or elementwise, l1, mse, or module:function
            beta=1.0,  # smooth-l1 transition
            target_norm="none",  # or layer_norm
            causal_weight=0.5,  # lambda
            causal_tokens="remaining",  # mean over visible tokens that no removed object touches, or context: all
            sigreg_weight=0.01,  # mu
            sigreg_kind="kl",  # of singular values to uniform, or epps_pulley: LeJEPA's sliced test against N(0, I)
            encoder_input="context",  # or zeroed: the whole grid, masked positions zeroed
            ema=(0.996, 1.0),  # target momentum at the first and after the last step
            ema_kind="cosine",  # or linear
        )
    )
    config.objective.predictor.max_objects = config.mask.get_ref("max_objects")
    config.optim = ConfigDict(
        dict(
            base=1.5e-4,  # peak learning rate = base x batch / 256
            peak=0.0,  # explicit peak (0: by the rule above)
            warmup_epochs=40.0,  # linear warm-up
            warmup_share=0.0,  # explicit warm-up as a share of all steps (0: by epochs)
            cooldown=0.0,  # share of the last steps that fall linearly from a constant rate to 0 (0: cosine to 0)
            b1=0.9,
            b2=0.95,
            eps=1e-8,
            weight_decay=0.05,  # on matrices only
            clip=0.0,  # global gradient norm (0: no clipping)
            layer_decay=1.0,  # of the rate, per block of the encoder from the last to the first (1: none)
            freeze=(),  # parts that are not trained, such as ("encoder",) of init_from
        )
    )
    config.checkpoint = ConfigDict(
        dict(every=1000, keep=2, best="probe/count_r2")  # steps, newest kept, metric of the best one that is also kept
    )
    config.probe = ConfigDict(
        dict(every=5000, train=1024, test=1024, batch=64)  # steps (0: only at the end), held-out scenes, encoding batch
    )
    config.monitors = ConfigDict()  # custom metrics: name -> type = "module:Name", every (steps) and its options
    config.evals = ConfigDict(  # of python -m cjepa_jax.evaluate (training ignores it)
        dict(
            seed=1000,  # of generated scenes and of questions: the same for every model
            fit=2048,  # scenes that heads are fitted on (0: all of the split)
            fit_split="train",
            test=1024,  # scenes that they are scored on
            test_split="test",  # "eval" while a setting is being chosen
            random_inits=3,  # random initialisations reported with each result
            batch=32,  # scenes encoded at a time
            protocols=ConfigDict(),  # name -> type = "module:Class" and its options (configs/evals)
        )
    )
    config.log = ConfigDict(dict(every=50, level="info", tensorboard=True, wandb=False, report=True))
    return config.lock()

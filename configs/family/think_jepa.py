"""ThinkJEPA (arXiv 2603.22281), our reading in a small size: the future of a clip, guided by an embedding. On Rooms.

    python -m cjepa_jax.train --config=configs/family/think_jepa.py

As in the public description: the past's frames are encoded without the future's, an embedding of a slower stream
modulates the norms of every block of a causal predictor (FiLM, from 0 on), and the error of the future's latents is
squared. Different: the embedding is the simulator's outcome (there hidden states of Qwen3-VL-2B), the encoder is
trained with a moving average as its target (there a frozen V-JEPA), and there is no head for the trajectories of hands.
See docs/FAMILY.md.

    --config.data.options.shuffled=True      a control: the embedding of another clip
    --config.objective.condition=none        a control without embeddings
"""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips


def get_config():
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.train.batch = 32
    config.train.steps = 600
    config.data.source = "cjepa_jax.data.sources.guided:Guided"
    config.data.options = ConfigDict(
        dict(
            of="cjepa_jax.data.worlds.acting:Rooms",
            of_options=ConfigDict(dict(policy="walk", wall=(0.5, 0.5), door=(0.5, 0.5))),
            embeddings="",  # a folder of embeddings. "": the outcome
            steps=2,  # of the outcome, in the 8 frames
            objects=1,
            shuffled=False,
        )
    )
    config.data.size = 32
    config.data.frames = 8
    config.data.count = 20_000
    config.data.intervened = "none"
    config.data.row_lengths = (0.5, 1.0)
    config.mask = ConfigDict(dict(type="cjepa_jax.masks.future:draw", share=0.5))
    config.objective = ConfigDict(
        dict(
            type="cjepa_jax.objectives.thinking:Thinking",
            encoder=ConfigDict(dict(variant="Mu/8", tubelet=2, depth=2)),
            predictor=ConfigDict(dict(depth=2, width=48, heads=4, max_objects=1)),
            guide=ConfigDict(dict(width=96, hidden=128)),
            condition="film",  # or none
            prediction_loss="mse",
            target_norm="layer_norm",
            causal_weight=0.0,
            sigreg_weight=0.01,
        )
    )
    config.checkpoint.best = ""
    config.probe.every = 0
    config.probe.train = 256
    config.probe.test = 256
    config.monitors.place = ConfigDict(dict(type="cjepa_jax.monitors.place:Place", every=100))
    return config.lock()

"""Prints which share of a removed object's tokens each mask of the study hides (docs/RESULTS.md).

python docs/figures/hidden_shares.py
"""

import importlib
import itertools

import numpy as np

from cjepa_jax import experiment

BATCHES = 20  # of 32 scenes
CONFIGS = {
    "objects": "tiny",
    "named": "effects.named",
    "met": "effects.met",
    "blocks": "effects.blocks",
    "tokens": "effects.tokens",
}

for name, module in CONFIGS.items():
    config = importlib.import_module(f"cjepa_jax.configs.{module}").get_config()
    config.update_from_flattened_dict({"data.workers": 0})
    batches = experiment.assemble(config).loader.iterate(0, BATCHES)
    shares = []
    for batch in itertools.islice(batches, BATCHES):
        for row, number in np.argwhere(batch["removed"]):
            tokens = batch["object_patches"][row, number]
            shares.append((~batch["context"][row] & tokens).sum() / tokens.sum())
    share = np.array(shares)
    some, all_of = (share > 0).mean(), (share == 1).mean()
    print(f"{name:8} mean {share.mean():.3f}, some in {some:.3f} and all in {all_of:.3f} of {len(share)} removals")

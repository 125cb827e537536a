"""All methods on all simulated worlds at the size of clips.py: about a day on two cores, hours on a small GPU.

    python -m cjepa_jax.compare --suite=configs/suites/worlds.py --workdir=runs/worlds --jobs=2

Not run to its end by us. The supervised ResNet-50 and the smoke cells of micro are full rows here.
"""

from cjepa_jax.configs.suites import micro

WORLDS = ("Balls", "Blocks", "Ramps", "Craft", "Shadows")


def get_suite():
    suite = micro.get_suite()
    for method in suite["methods"].values():
        if method.get("steps"):
            del method["steps"]
    suite["about"] = "64-pixel clips of 8 frames, width 96"
    suite["flops"] = 2e13
    suite["shared"] |= {"data.size": 64, "data.frames": 8, "probe.train": 1024, "probe.test": 1024}
    suite["worlds"] = {
        name.lower(): {"label": name, "overrides": {"data.source": f"cjepa_jax.data.worlds:{name}"}} for name in WORLDS
    }
    suite["evals"] |= {"fit": 2048, "test": 1024}
    return suite

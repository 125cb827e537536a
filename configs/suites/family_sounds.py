"""The family on sounds: Audio-JEPA with its random masks and with multi-block masks, equal compute, three seeds.

    python -m cjepa_jax.compare --suite=configs/suites/family_sounds.py --workdir=runs/family-sounds --jobs=2

Eight kinds of sounds, the encoder of family/audio_jepa.py, as many operations as its 1,000 steps. The multi-block masks
are those of family/audio_jepa_blocks.py. Results: docs/RESULTS_FAMILY.md.
"""

from cjepa_jax.configs.suites import family_points


def get_suite():
    suite = family_points.get_suite()
    suite["evals"]["protocols"].pop("published")
    suite["columns"] = {name: where for name, where in suite["columns"].items() if where[0] != "published"}
    suite["about"] = "spectrograms of 64 times and 64 bands, width 96, one CPU core a cell"
    suite["flops"] = 7.47e12  # 1,000 steps of Audio-JEPA
    suite["worlds"] = {"sounds": {"label": "Sounds", "overrides": {}}}
    suite["methods"] = {
        "random": {"label": "random init", "config": "family/audio_jepa", "steps": 0},
        "audio_jepa": {"label": "Audio-JEPA", "config": "family/audio_jepa"},
        "blocks": {"label": "Audio-JEPA, multi-block", "config": "family/audio_jepa_blocks"},
    }
    suite["tuning"] = dict(suite["tuning"], values=(5e-4, 1e-3, 2e-3), world="sounds")
    suite["contrasts"] = [("audio_jepa", "random"), ("blocks", "random"), ("audio_jepa", "blocks")]
    return suite

"""What the baselines that compare views share (BYOL, SimCLR, VICReg, DINO, LeJEPA)."""

from ml_collections import ConfigDict

from cjepa_jax.configs import clips

# BYOL's crops and colours (arXiv 2006.07733, appendix B). Crops are of 0.3 and more of the frame, not of 0.08.
VIEWS = dict(scale=(0.3, 1.0), aspect=(0.75, 4 / 3), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_share=0.8, grey=0.2)


def scenes_alone() -> ConfigDict:
    """clips.py unlocked: its encoder, scenes and budget, without intervened scenes and with rows of whole scenes."""
    config = clips.get_config().copy_and_resolve_references().unlock()
    config.data.intervened = "none"
    config.data.row_lengths = (1.0,)
    return config

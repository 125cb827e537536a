"""LeJEPA (arXiv 2511.08544) as in the paper's main recipe, on small clips: two large and six small views.

    python -m cjepa_jax.train --config=configs/family/lejepa.py

As published: (1 - lambda) times the distance of all views from the mean of the large ones, plus lambda times the
Epps-Pulley statistic of each view, lambda 0.05, 1024 slices drawn in each step, 17 knots up to 3. Different: sizes
(there 224 and 98 pixels), small views are crops of 0.1 to 0.3 of the frame (there 0.05 to 0.3), a ViT whose tokens are
averaged and whose position codes count tokens from the view's corner (not scaled to the view), clips.py's optimiser and
schedule. The paper's minimal listing is configs/baselines/lejepa.py.
"""

from cjepa_jax.configs.baselines import lejepa


def get_config():
    config = lejepa.get_config().copy_and_resolve_references().unlock()
    views = config.objective.views
    views.count, views.small, views.small_size, views.small_scale = 2, 6, 32, (0.1, 0.3)
    config.objective.weight = 0.05
    config.objective.slices = 1024
    return config.lock()

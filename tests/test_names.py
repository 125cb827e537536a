"""Names that users import. They stay where they are."""

import importlib

import pytest

NAMES = {
    "cjepa_jax": ("load",),
    "cjepa_jax.losses": ("smooth_l1", "causal_consistency", "sigreg"),
    "cjepa_jax.masks.objects": ("patches", "draw"),
    "cjepa_jax.schedules": ("ema_momentum", "learning_rate"),
}


@pytest.mark.parametrize("module", NAMES)
def test_the_names_that_users_rely_on_can_be_imported(module):
    found = importlib.import_module(module)
    for name in NAMES[module]:
        function = getattr(found, name)
        assert callable(function) and function.__module__.startswith("cjepa_jax."), f"{module}.{name}"

"""The real wandb, offline."""

import pytest

from cjepa_jax.runtime.workdir import Workdir
from cjepa_jax.runtime.writers import Writers
from configs import clips


@pytest.mark.needs("wandb")
def test_wandb_records_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = clips.get_config()
    config.log.wandb = True
    with Workdir(tmp_path, config) as workdir:
        writers = Writers(workdir, config)
        writers.write(1, {"loss": 2.0})
        writers.write(2, {"loss": 1.0})
        writers.close()
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert record.stat().st_size > 0

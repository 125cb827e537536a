"""docs/METRICS.md names exactly what a run writes."""

import json
import re

from tests import running


def test_every_metric_that_a_run_writes_is_documented_and_the_other_way_round(tmp_path):
    running.run(running.command(tmp_path, train__steps=2, probe__every=0))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    written = {name for line in lines for name in line}
    assert {"loss", "compilations", "probe/rankme_random", "probe/count_r2_pixels"} <= written
    written = {re.sub("^(probe/.*)_(random|pixels)$", r"\1", name) for name in written}  # explained for all together
    cells = re.findall(r"^\| (`.*?) \|", (running.ROOT / "docs/METRICS.md").read_text(), flags=re.M)
    documented = {name for cell in cells for name in re.findall("`(.+?)`", cell)}
    assert (written - documented, documented - written) == (set(), set())

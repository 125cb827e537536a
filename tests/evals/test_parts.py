"""Parts of results are read again under the same setting only."""

import json

from cjepa_jax.evals.parts import NAME, Parts


def test_a_part_is_read_again_under_the_same_setting_and_key_and_no_other(tmp_path, caplog):
    parts, value = Parts(tmp_path, {"seed": 1}), {"accuracy": [0.1 + 0.2, 1e-17, 3]}
    assert parts.get(["row", 0]) is None
    parts.put(["row", 0], value)
    parts.put(["row", 1], {})
    assert Parts(tmp_path, {"seed": 1}).get(["row", 0]) == value and parts.get(["row", 1]) == {}
    other = Parts(tmp_path, {"seed": 2})
    assert other.get(["row", 0]) is None and parts.get(["row", 2]) is None
    other.put(["row", 0], {"accuracy": [1.0, 0.0, 3]})
    assert parts.get(["row", 0]) == value, "another setting stands beside"
    file = tmp_path / NAME
    changed = json.loads(file.read_text().replace("0.30000000000000004", "0.9"))
    file.write_text(json.dumps(changed))
    assert parts.get(["row", 0]) is None and parts.get(["row", 1]) == {}
    for text in ("[]", json.dumps({name: 3 for name in changed}), "{"):
        file.write_text(text)
        assert parts.get(["row", 0]) is None
    assert "is damaged" in caplog.text
    parts.put(["row", 0], value)
    assert parts.get(["row", 0]) == value

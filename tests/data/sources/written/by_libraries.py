"""Writes the fixtures of this folder with the published libraries themselves. Run by hand, not by the tests:

    pip install --no-deps --target=LIBS stable-worldmodel==0.1.1 lerobot==0.4.4 [what their writers import]
    PYTHONPATH=LIBS python tests/data/sources/written/by_libraries.py

`source.json` keeps the versions, the SHA-256 of each file and the rule of its contents. Only the writers are used.
Packages whose import would need simulators are opened without their `__init__`. torchvision and accelerate, which no
writer calls, are empty modules.
"""

import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import json
import pathlib
import shutil
import sys
import tempfile
import types

import numpy as np

HERE = pathlib.Path(__file__).parent
LENGTHS, SIDE, FPS = (9, 5, 12), 32, 10


def frames(start: int, length: int) -> tuple[np.ndarray, ...]:
    """Frame n of all episodes: brightness 20 + 8 n, action (n, -n), state (n / 10, n)."""
    n = np.arange(start, start + length)
    video = np.broadcast_to((20 + 8 * n)[:, None, None, None], (length, SIDE, SIDE, 3)).astype(np.uint8)
    return video, np.stack([n, -n], 1).astype(np.float32), np.stack([n / 10, n], 1).astype(np.float32)


def bare(name: str) -> None:
    """Makes a package importable without its __init__."""
    parent, _, last = name.rpartition(".")
    places = sys.modules[parent].__path__ if parent else sys.path
    found = importlib.machinery.PathFinder.find_spec(name, places)
    module = types.ModuleType(name)
    module.__path__, module.__spec__ = list(found.submodule_search_locations), found
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], last, module)


def stable_worldmodel(path: pathlib.Path) -> None:
    for name in ("stable_worldmodel", "stable_worldmodel.data", "stable_worldmodel.data.formats"):
        bare(name)
    writer = importlib.import_module("stable_worldmodel.data.formats.hdf5").HDF5Writer
    start = 0
    with writer(path, mode="error") as out:
        for length in LENGTHS:
            video, actions, proprio = frames(start, length)
            out.write_episode({"pixels": list(video), "action": list(actions), "proprio": list(proprio)})
            start += length


def lerobot(root: pathlib.Path) -> None:
    vision = types.ModuleType("torchvision")
    vision.transforms = types.ModuleType("torchvision.transforms")
    vision.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
    sys.modules |= {"torchvision": vision, "torchvision.transforms": vision.transforms}
    sys.modules["accelerate"] = types.ModuleType("accelerate")
    sys.modules["accelerate"].Accelerator = object  # for annotations
    bare("lerobot")
    bare("lerobot.datasets")
    made = importlib.import_module("lerobot.datasets.lerobot_dataset").LeRobotDataset
    vector = {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}
    features = {
        "observation.image": {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]},
        "observation.state": vector,
        "action": vector,
    }
    out = made.create("fixture", FPS, features, root=root, use_videos=True, vcodec="h264")
    start = 0
    for length in LENGTHS:
        for image, action, state in zip(*frames(start, length), strict=True):
            row = {"observation.image": image, "observation.state": state, "action": action, "task": "none"}
            out.add_frame(row)
        out.save_episode()
        start += length
    out.finalize()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, write, where in (
            ("stable-worldmodel", stable_worldmodel, "stable_worldmodel.h5"),
            ("lerobot", lerobot, "lerobot"),
        ):
            if name in sys.argv[1:] or len(sys.argv) == 1:
                write(pathlib.Path(folder, where))
                shutil.rmtree(HERE / where) if (HERE / where).is_dir() else (HERE / where).unlink(missing_ok=True)
                shutil.move(pathlib.Path(folder, where), HERE / where)
    files = [path for path in sorted(HERE.rglob("*")) if path.is_file() and path.suffix not in (".py", ".pyc")]
    sums = {
        str(p.relative_to(HERE)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.name != "source.json"
    }
    versions = {name: importlib.metadata.version(name) for name in ("stable-worldmodel", "lerobot", "h5py", "pyarrow")}
    rule = {"lengths": LENGTHS, "side": SIDE, "fps": FPS, "contents": " ".join(frames.__doc__.split())}
    (HERE / "source.json").write_text(json.dumps({"versions": versions, "rule": rule, "sha256": sums}, indent=1) + "\n")


if __name__ == "__main__":
    main()

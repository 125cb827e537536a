"""TFRecord shards for fixtures, and MOVi's features as its builder declares them, serialised by TFDS itself."""

import json
import struct
from pathlib import Path

import cv2
import google_crc32c
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.features import feature

F = tfds.features


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def write_tfrecord(path: Path, records: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    framed = []
    for record in records:
        length = struct.pack("<Q", len(record))
        framed += [length, struct.pack("<I", masked(length)), record, struct.pack("<I", masked(record))]
    path.write_bytes(b"".join(framed))
    return path


def write_info(root: Path, name: str, splits: dict[str, list[int]], **more) -> None:
    """dataset_info.json as TFDS writes it: 64-bit numbers are texts."""
    root.mkdir(parents=True, exist_ok=True)
    entries = [{"name": key, "numBytes": "1", "shardLengths": list(map(str, n))} for key, n in splits.items()]
    info = {"name": name, "version": "1.0.0", "configName": "128x128", "downloadSize": "0", "splits": entries}
    (root / "dataset_info.json").write_text(json.dumps(info | more))


def png(pixels: np.ndarray) -> bytes:
    """RGB [H,W,3] or grey [H,W]."""
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def movi_features(s: int, h: int, w: int) -> F.FeaturesDict:
    """MOVi-A's. C to E differ in what they say about shapes and colours, which is not read."""

    def tensor(*shape, dtype=np.float32):
        return F.Tensor(shape=shape, dtype=dtype)

    instances = {name: np.float32 for name in ("mass", "friction", "restitution")}
    instances |= {name: tensor(s, 3) for name in ("positions", "velocities", "angular_velocities")}
    instances |= {"quaternions": tensor(s, 4), "bboxes_3d": tensor(s, 8, 3), "image_positions": tensor(s, 2)}
    instances |= {"bboxes": F.Sequence(F.BBoxFeature()), "bbox_frames": F.Sequence(tensor(dtype=np.int32))}
    instances |= {"visibility": tensor(s, dtype=np.uint16), "color": tensor(3)}
    instances |= {"shape_label": F.ClassLabel(names=["cube", "cylinder", "sphere"])}
    ranges = ("depth_range", "forward_flow_range", "backward_flow_range")
    collisions = {"instances": tensor(2, dtype=np.uint16), "frame": np.int32, "force": np.float32}
    collisions |= {"position": tensor(3), "image_position": tensor(2), "contact_normal": tensor(3)}
    flow = F.Sequence(tensor(h, w, 2, dtype=np.uint16), length=s)
    return F.FeaturesDict(
        {
            "metadata": {"video_name": F.Text(), "num_instances": np.uint16}
            | dict.fromkeys(("width", "height", "num_frames"), np.int32)
            | {name: tensor(2) for name in ranges},
            "instances": F.Sequence(instances),
            "camera": {"focal_length": np.float32, "positions": tensor(s, 3), "quaternions": tensor(s, 4)},
            "events": {"collisions": F.Sequence(collisions)},
            "video": F.Sequence(F.Image(shape=(h, w, 3)), length=s),  # which F.Video is. That needs tensorflow
            "segmentations": F.Sequence(F.Image(shape=(h, w, 1), dtype=np.uint8), length=s),
            "forward_flow": flow,
            "depth": F.Sequence(F.Image(shape=(h, w, 1), dtype=np.uint16), length=s),
        }
    )


class Info(feature.TensorInfo):
    """Where lists are nested, TFDS asks for the type of tensorflow. NumPy's serves as well."""

    dtype = property(lambda self: self.np_dtype)


def serialise(features: F.FeaturesDict, example: dict) -> bytes:
    infos = utils.map_nested(Info.copy_from, features.get_serialized_info(), dict_only=True)
    return ExampleSerializer(infos).serialize_example(features.encode_example(example))

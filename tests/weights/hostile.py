"""Files that mean harm, and files damaged at random."""

import os
import pickle
import random
import tracemalloc
import zipfile

import pytest
import safetensors.numpy

from cjepa_jax.errors import CheckpointError
from cjepa_jax.weights import files


class Harm:
    """Makes a folder wherever it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def archive(path, data, records=(("data/0", bytes(48)),), compression=zipfile.ZIP_STORED, root="archive/"):
    """A zip as torch.save makes it, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, content in (("data.pkl", data), ("version", b"3\n"), *records):
            out.writestr(f"{root}{name}", content)
    return path


def tensor(size, stride, kind="FloatStorage", numel=12):
    """A pickle of {"a": a tensor} with any claims about its data, which are those of the archive's data/0."""
    storage = b"(" + text("storage") + called(f"torch {kind}") + text("0") + text("cpu") + whole(numel) + b"tQ"
    shape = b"(" + b"".join(map(whole, size)) + b"t(" + b"".join(map(whole, stride)) + b"t"
    built = b"(" + storage + whole(0) + shape + b"\x89" + called("collections OrderedDict") + b")Rt"
    return b"\x80\x02}" + text("a") + called("torch._utils _rebuild_tensor_v2") + built + b"Rs."


def text(word):
    """BINUNICODE."""
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def whole(number):
    """LONG1."""
    digits = pickle.encode_long(number)
    return b"\x8a" + bytes([len(digits)]) + digits


def called(name):
    """GLOBAL."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def damaged(data, count, seed=0):
    """Variants of some bytes: flipped, cut, doubled, overwritten, with numbers swapped for extreme ones."""
    rng = random.Random(seed)
    for _ in range(count):
        out = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at, kind = rng.randrange(len(out) or 1), rng.randrange(6)
            length = rng.randrange(1, 40)
            if kind == 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            elif kind == 1:
                del out[at : at + length]
            elif kind == 2:
                out[at:at] = out[at : at + length]
            elif kind == 3:
                out[at : at + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"[[[[{{{{"))
            elif kind == 4:
                del out[at:]
            else:
                digits = [i for i, byte in enumerate(out) if chr(byte).isdigit()]
                if digits:
                    at = rng.choice(digits)
                    out[at : at + 1] = rng.choice((b"-1", b"9" * 18, b"1e999", b"0", b"9" * 5000, b'"1"', b"NaN"))
        yield bytes(out)


def refusal(work, match=""):
    """The one line with which `work` is refused."""
    with pytest.raises(CheckpointError, match=match or ": ") as caught:
        work()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def refused_or_read(path, read=lambda path: [*files.tensors(path).values()], limit=8 << 20):
    """Reads everything in a file: True, or False where it is refused in one line. Nothing else, in bounded memory."""
    tracemalloc.start()
    try:
        read(path)
        return True
    except CheckpointError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return False
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < limit, f"{peak} bytes"


def saved(path, **content):
    safetensors.numpy.save_file(content, path)
    return path

"""Packaging. The reason for each dependency is in docs/DEPENDENCIES.md."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "cjepa_jax/__init__.py").read_text()).group(1)

# A clone keeps these folders at its top; a wheel has them inside the package, such as cjepa_jax/configs.
INSIDE = ("configs", "launch", "examples")
PACKAGES = {
    *find_packages(include=["cjepa_jax", "cjepa_jax.*"]),
    *(f"cjepa_jax.{name}" for name in find_packages(include=["configs", "configs.*", "launch"])),
    "cjepa_jax.examples.folder",  # pictures only
}

DOCS = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.6,<10",
    "mkdocstrings[python]>=1,<2",
    "jupytext>=1.17",
    "latex2mathml>=3.78",
    "ruff==0.15.0",
]
TEST = ["pytest>=9", "pytest-xdist>=3.6", "hypothesis>=6", "beartype>=0.20", "ruff==0.15.0", "tensorboard>=2.19"]

setup(
    name="cjepa_jax",
    version=VERSION,
    description="Causal-JEPA and the JEPA family in JAX/Flax",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)],
    python_requires=">=3.11",
    packages=sorted(PACKAGES),
    package_dir={f"cjepa_jax.{name}": name for name in INSIDE},
    package_data={
        "cjepa_jax.examples.folder": ["**/*.png"],
        "cjepa_jax.models": ["*.cc"],
        "cjepa_jax.weights.shipped": ["*/*.json", "*/*.safetensors", "*/*.sha256", "*/*.md", "*/LICENSE"],
    },
    entry_points={"console_scripts": ["cjepa = cjepa_jax.runtime.command:script"]},
    install_requires=[
        # Bounded above are those whose 0.x releases may break what is used here.
        "jax>=0.10,<0.13",
        "flax>=0.12,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "grain>=0.2.18,<0.3",
        "ml-collections>=1.1",
        "tensorflow-datasets>=4.9.10",
        "clu==0.0.12",
        "absl-py>=2",
        "numpy>=2",
        "scipy>=1.13",
        "jaxtyping>=0.3",
        "pymunk>=7.1,<8",
        "opencv-python-headless>=4.10",
        "matplotlib>=3.9",
        "tensorboardX>=2.6.2",
        "msgpack>=1",
        "pycocotools>=2.0.10",
        "tqdm>=4.60",
        "array_record>=0.8",
        "safetensors>=0.5",
        "google-crc32c>=1.5",
        "pillow>=11",
        "simplejpeg>=1.8",
        "pyyaml>=6",
    ],
    extras_require={
        "test": TEST,
        "docs": DOCS,
        "dev": [*TEST, "mypy==2.4.1", "codespell==2.4.3", "pre-commit>=4"],
        "torch": ["torch>=2.10"],
        "onnx": ["torch>=2.10", "onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"],
        "sam": ["torch>=2.10", "transformers>=5", "scikit-image>=0.24"],
        "hub": ["huggingface_hub>=1"],
        "beam": ["apache-beam>=2.60"],
        "video": ["av>=14"],
        "episodes": ["h5py>=3.11", "hdf5plugin>=5", "pyarrow>=18"],
        "gym": ["gymnasium>=1"],
        "sound": ["soundfile>=0.12"],
        "bands": ["tifffile>=2024.8", "imagecodecs>=2024.6"],
        "slurm": ["submitit>=1.5"],
        "wandb": ["wandb>=0.20"],
    },
)

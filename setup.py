"""Afterwit's metadata. The source lies in the top-level folders and installs as afterwit.agents,
afterwit.envs, …
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOMS = ("envs", "world_models", "agents", "runs")
MINIGRID = ["minigrid>=3.2,<3.3"]
RAY = ["ray>=2.60,<3"]
# rliable's arch cannot be imported with pandas 3.
STUDY = ["rliable>=1.2,<1.3", "pandas>=2.2,<3", "scipy>=1.11,<2"]
EXAMPLES = ["stable-baselines3>=2.9,<3", "torchrl>=0.14,<0.15"]
DOCS = ["furo>=2025.12,<2027", "myst-parser>=5,<6", "sphinx>=9,<10", "sphinx-copybutton>=0.5,<0.6"]


def packages(room: str) -> list[str]:
    """A room and the packages in it: runs, runs.output, ..."""
    return [room, *(f"{room}.{inner}" for inner in find_packages(room))]


setup(
    name="afterwit",
    version="0.1.0",
    description=(
        "Curiosity that survives noise: BYOL-Explore and BYOL-Hindsight with V-MPO in PyTorch"
    ),
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    # runs/__main__.py is `python -m afterwit`, too; the empty runs/__init__.py comes with it.
    package_dir={"afterwit": "runs"} | {f"afterwit.{room}": room for room in ROOMS},
    py_modules=["afterwit.__main__"],
    packages=[f"afterwit.{name}" for room in ROOMS for name in packages(room)],
    package_data={f"afterwit.{room}": ["py.typed"] for room in ROOMS},
    install_requires=[
        "torch>=2.11,<2.14",
        "gymnasium>=1.2,<1.5",
        "ale-py>=0.12,<0.13",
        "envpool>=1.2.5,<1.3",
        "numpy>=2.1,<2.6",
        "tensorboard>=2.20,<3",
        "imageio-ffmpeg>=0.6,<0.9",
        "matplotlib>=3.10,<3.12",
        "pillow>=11,<14",
        "safetensors>=0.6,<0.9",
        "tqdm>=4.67,<5",
        "tyro>=1.0,<1.1",
    ],
    extras_require={
        "minigrid": MINIGRID,
        "ray": RAY,
        "study": STUDY,
        "examples": EXAMPLES,
        "docs": DOCS,
        "dev": [
            *MINIGRID,
            *RAY,
            *STUDY,
            *EXAMPLES,
            *DOCS,
            "hypothesis>=6.140,<7",
            "mypy>=1.18,<3",
            "pytest>=9,<9.2",  # from 9.2 on pytest-xdist 3.8 forgets groups (its issue 1386)
            "pytest-xdist>=3.8,<4",
            "ruff>=0.14,<0.18",
            "setuptools>=77",
        ],
    },
    entry_points={"console_scripts": ["afterwit=afterwit.runs.__main__:main"]},
)

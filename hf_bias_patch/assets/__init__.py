"""Three tiny pretrained checkpoints that come with the package, and the world they were trained on."""

from pathlib import Path

NAMES = ("bart", "bert", "gpt2")


def folder(name: str) -> Path:
    """Return the folder of the embedded checkpoint `name`, for any ``from_pretrained``.

    Raises ValueError for a name that is not in `NAMES`.
    """
    if name not in NAMES:
        raise ValueError(f"no embedded checkpoint is called {name!r}; choose one of {', '.join(NAMES)}")
    return Path(__file__).parent / name

"""Make the images and the manifest beside this file: ``python -m tests.data.media.make``, from the project's root.

What the images are is told in in_guest.py, which does the work in a virtual machine. It takes about three minutes.
"""

from __future__ import annotations

from pathlib import Path

from tests.minivm import run_in_guest

HERE = Path(__file__).parent


def main() -> None:
    made = run_in_guest("tests/data/media/in_guest.py", modules=["udf", "loop"], tools=["mkudffs"], within=1200)
    print(made.pop("log").decode())
    for name, data in made.items():
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()

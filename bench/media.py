"""What reading the media costs: ``python -m bench.media``, from the project's root.

For each kind of volume, with an ovf-env of 3000 bytes and 64 KiB of customData: the median time of reading it, the
reads and the bytes asked of the disc. The budget is 10 ms and 1 MiB. Last, the time that importing the module takes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from minprov.discs import iso9660, udf
from minprov.discs.reader import LIMITS, read_media
from tests.discs.media_samples import DRIVE_FILES, LAYOUTS, Image
from tests.discs.test_iso9660 import write_volume as write_iso9660
from tests.discs.udf_writer import write_volume as write_udf

REPEATS = 51


def main() -> None:
    """Measure and print."""
    volumes = {f"UDF, {name}": (udf.read_files, write_udf(DRIVE_FILES, layout)) for name, layout in LAYOUTS.items()}
    for name, options in (("Joliet", {"joliet": 3}), ("Rock Ridge", {"rock_ridge": "1.12"})):
        volumes[f"ISO 9660, {name}"] = iso9660.read_files, write_iso9660(DRIVE_FILES, **options)
    print(f"{'volume':48} {'ms':>6} {'reads':>6} {'KiB':>6}")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image"
        for name, (reader, volume) in volumes.items():
            path.write_bytes(volume)
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                read_media(str(path))
                times.append(time.perf_counter() - start)
            image = Image(volume)
            reader(image, len(volume), LIMITS)
            median = statistics.median(times) * 1000
            print(f"{name:48} {median:6.2f} {len(image.reads):6} {image.bytes_read / 1024:6.0f}")
    argv = [sys.executable, "-X", "importtime", "-c", "import asyncio, minprov.ovf, minprov.media"]
    report = subprocess.run(argv, capture_output=True, text=True, check=True).stderr.splitlines()
    microseconds = next(int(line.split("|")[1]) for line in report if line.endswith("| minprov.media"))
    print(f"import of minprov.media beside the rest: {microseconds / 1000:.1f} ms")


if __name__ == "__main__":
    main()

"""The page as a browser shows it: `make test-browser`. The screenshots stay in build/screenshots, to be looked at."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from minprov.outcome.page import render_result_page
from minprov.outcome.result import to_document
from tests.outcome.test_page import failed_result

pytestmark = pytest.mark.browser

SCREENSHOTS = Path(__file__).parents[2] / "build/screenshots"
# Tells the width that the page wants, by a frame around it: a page that is too wide for a phone wants more than it has.
FRAME = """<iframe id="page" src="{page}" style="width: {width}px; height: 900px; border: 0"></iframe>
<script>onload = () => {{ document.title = page.contentDocument.documentElement.scrollWidth }}</script>"""
BAD = {"light": (0xCF, 0x22, 0x2E), "dark": (0xFF, 0x7B, 0x72)}
BACK = {"light": (0xFF, 0xFF, 0xFF), "dark": (0x0D, 0x11, 0x17)}


def browse(*arguments: str) -> str:
    browser = shutil.which("chromium")
    assert browser, "make test-browser installs it"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text(render_result_page(to_document(failed_result())), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_it_can_be_seen(page: Path, width: int, scheme: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    shot = SCREENSHOTS / f"result-{width}-{scheme}.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse(f"--window-size={width},1400", f"--screenshot={shot}", *dark, page.as_uri())
    with Image.open(shot) as image:
        assert image.width == width
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or ()}
    assert BAD[scheme] in colours, "neither the verdict nor an attempt in vain is to be seen"
    assert BACK[scheme] in colours
    assert len(colours) > 50, "there is no text on it"


def test_a_phone_shows_its_whole_width(page: Path, tmp_path: Path) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(page=page.as_uri(), width=390))
    found = browse("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri())
    title = re.search(r"<title>([0-9]+)</title>", found)
    assert title
    assert int(title[1]) == 390

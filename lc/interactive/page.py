"""A piece of HTML with its data and its script inside."""

import base64
import hashlib
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def fill(name, data):
    """The HTML of `<name>.html` with the script `<name>.js`, its data as JSON, and its own id."""
    data = json.dumps(data, separators=(",", ":"))
    place = f"lc-{name}-{hashlib.sha256(data.encode()).hexdigest()[:8]}"
    style, html, script = ((HERE / file).read_text(encoding="utf-8")
                           for file in ("page.css", f"{name}.html", f"{name}.js"))
    return (f'<div class="lc-play" id="{place}"><style>\n{style}</style>\n{html}<script>\n'
            f'(() => {{\nconst root = document.getElementById("{place}"), data = {data};\n'
            f"{script}}})();\n</script></div>")


def packed(images):
    """Images, one along the first axis, as text: 255 steps, with 0 in the middle.

    Each is divided by its own largest magnitude, or a tenth of the largest of all, whichever is
    larger: faint ones stay nearly grey.
    """
    images = np.asarray(images, float)
    largest = np.abs(images).max(tuple(range(1, images.ndim)), keepdims=True)
    largest = np.maximum(largest, largest.max() / 10)
    steps = 128 + np.rint(127 * images / largest)
    return base64.b64encode(steps.astype(np.uint8).tobytes()).decode()

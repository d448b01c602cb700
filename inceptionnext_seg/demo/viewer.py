"""What a browser shows of a prediction: HTML in which ``viewer.js`` paints the overlay and answers the pointer.

Class indices and confidences go to the browser as the channels of one PNG, so that opacity, highlighted classes and
the pixel under the pointer need no answer of the server.
"""
import base64
import html
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..api import Prediction
from ..engine.inference import percentage
from ..errors import UserError
from .segmenting import Result

# Pixels of the longer side of what is sent; the files to download have all.
LONGEST = 1280
FOLDER = Path(__file__).parent
SCRIPT, STYLE = ((FOLDER / name).read_text(encoding='utf-8') for name in ('viewer.js', 'viewer.css'))


def data_uri(picture: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f'data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}'


def reduced(shape: tuple[int, int], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, evenly spaced, that are kept of an image of ``shape``."""
    scale = min(1, longest / max(shape))
    return tuple((np.arange(n := max(1, round(size * scale))) * 2 + 1) * size // (2 * n) for size in shape)


def pixels(prediction: Prediction, longest: int = LONGEST) -> Image.Image:
    """RGB: red and green are the low and high byte of the class index, blue is the confidence, 255 for 1."""
    rows, columns = reduced(prediction.classes.shape, longest)
    classes = prediction.classes[np.ix_(rows, columns)].astype(np.uint16)
    confidence = prediction.confidence[np.ix_(rows, columns)]
    return Image.fromarray(np.stack(
        (classes & 255, classes >> 8, (255 * confidence).round().clip(0, 255)), -1).astype(np.uint8))


def legend(prediction: Prediction) -> str:
    """A button for each class that was found: colour, name, share of the image; names are a stranger's, and escaped."""
    index = {name: i for i, name in reversed(list(enumerate(prediction.labels.classes)))}
    rows = []
    for name, share in prediction.shares.items():
        color = ','.join(map(str, prediction.labels.palette[index[name]].tolist()))
        rows.append(f'<li><button type="button" data-class="{index[name]}"><i style="background:rgb({color})"></i>'
                    f'<b>{html.escape(name)}</b><span>{percentage(share)}</span></button></li>')
    return f'<ul class="legend">{"".join(rows)}</ul>'


def viewer(result: Result) -> str:
    """The overlay, what is known of it, and its legend."""
    prediction = result.prediction
    height, width = prediction.classes.shape
    shown = Image.fromarray(np.ascontiguousarray(prediction.image))
    shown.thumbnail((LONGEST, LONGEST))
    labels = html.escape(json.dumps(dict(classes=prediction.labels.classes,
                                         palette=prediction.labels.palette.tolist())))
    return (f'<figure class="viewer" data-size="{width},{height}" data-labels="{labels}" '
            f'data-pixels="{data_uri(pixels(prediction), "PNG")}">'
            f'<figcaption><b>{html.escape(result.model.name)}</b><span>{result.seconds:.2f} s, {width}×{height}, mean '
            f'confidence {100 * float(prediction.confidence.mean()):.0f} %</span></figcaption>'
            f'<div class="stage"><img alt="the image" src="{data_uri(shown, "JPEG", quality=92)}"><canvas></canvas>'
            f'<output class="tip"></output></div>{legend(prediction)}</figure>')


def message(error: UserError) -> str:
    return f'<p class="message" role="alert">{html.escape(str(error))}</p>'

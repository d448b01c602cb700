"""The page of a run: curves, IoU of each class, confusion matrix and the worst images, in one HTML file.

Nothing comes from elsewhere and nothing runs: pictures are embedded, curves are SVG, and a policy in the page forbids
the rest. Names of classes and files are escaped.
"""
import base64
import html
import math
from typing import Any, NamedTuple

import numpy as np

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 250, 56, 16, 14, 46
# A matrix of more classes cannot be read; the strongest confusions are listed for any number.
MATRIX_CLASSES, LISTED = 40, 12
STYLE = '''body{font:15px/1.45 system-ui,sans-serif;max-width:1020px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:13px}td,th{padding:.15em .6em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.bar{display:inline-block;height:.7em;background:#3a7}
.bars td:last-child{text-align:left;width:420px}.matrix td,.matrix th{padding:.1em .3em;font-size:11px}
.matrix{display:block;overflow-x:auto}.swatch{display:inline-block;width:.9em;height:.9em;border:1px solid #333;
margin-right:.4em}img,svg{max-width:100%}figure{margin:0 0 1em}figcaption{font-size:13px;overflow-wrap:anywhere}
svg text{font:11px system-ui,sans-serif;fill:#444}'''
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class WorstImage(NamedTuple):
    """An image with a low score: its name, the score in per cent, a sentence about it, and a JPEG or None."""
    name: str
    score: float
    words: str
    jpeg: bytes | None


class Content(NamedTuple):
    """What a page shows.

    Attributes:
        title (str), facts (list[tuple[str, str]]): The heading, and what is known of the run: names and values.
        losses (list), validations (list): ``(iteration, seconds, value)`` each: loss, and mIoU in per cent.
        classes (list[str]), palette (list): A name and an RGB colour each.
        confusion (ndarray | None): (N, N), pixels of label (row) and prediction (column) of the last validation.
        worst (list[WorstImage]): The lowest score first.
    """
    title: str
    facts: list[tuple[str, str]]
    losses: list[tuple[int, float, float]]
    validations: list[tuple[int, float, float]]
    classes: list[str]
    palette: list[Any]
    confusion: np.ndarray | None
    worst: list[WorstImage]


def text_of(value: Any) -> str:
    """Escaped for HTML; what is no Unicode, as in names of files, becomes a question mark."""
    return html.escape(str(value).encode('utf-8', 'replace').decode('utf-8'))


def iou_of(confusion: np.ndarray) -> np.ndarray:
    """IoU of each class in per cent, NaN for one in neither labels nor predictions."""
    hits = np.diag(confusion).astype(float)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return 100 * np.divide(hits, union, out=np.full(len(hits), math.nan), where=union > 0)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, 1, 2 or 5 times a power of ten apart."""
    span = max(high - low, 1e-12)
    step = 10. ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 10) for i in range(math.floor(high / step + 1e-9) - first + 1)]


def chart(points: list[tuple[int, float, float]], title: str, unit: str, dots: bool = False) -> str:
    """An SVG of values over iterations, with the minutes below these."""
    points = [point for point in points if all(map(math.isfinite, point))]
    if not points:
        return f'<p>{text_of(title)}: nothing yet.</p>'
    iterations, seconds, values = (np.array(column, float) for column in zip(*points, strict=True))
    low, high = min(0., values.min()), max(values.max() * 1.05, 1e-9)
    last = max(iterations.max(), 1.)

    def across(x):
        return LEFT + (WIDTH - LEFT - RIGHT) * x / last

    def up(y):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img"><title>{text_of(title)}</title>']
    for y in ticks(low, high):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    # Before the first point the clock began at 0.
    known = np.concatenate([[0.], iterations]), np.concatenate([[0.], seconds])
    for x in ticks(0, last, 8):
        minutes = np.interp(x, *known) / 60
        parts.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>'
                     f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 30}" text-anchor="middle">{minutes:.1f} min'
                     '</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">iterations, and minutes</text>'
                 f'<text x="{LEFT + 4}" y="{TOP}">{text_of(unit)}</text>')
    line = ' '.join(f'{across(x):.1f},{up(y):.1f}' for x, y in zip(iterations, values, strict=True))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#26a" stroke-width="1.5"/>')
    if dots:
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="#26a"/>'
                  for x, y in zip(iterations, values, strict=True)]
    return ''.join(parts) + '</svg>'


def swatch(color: Any) -> str:
    red, green, blue = (int(channel) for channel in color)
    return f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'


def bars(content: Content) -> str:
    """A row for each class: IoU, as a bar too, and its share of the labelled pixels."""
    pixels = content.confusion.sum(1)
    rows, ious = [], iou_of(content.confusion)
    for name, color, iou, count in zip(content.classes, content.palette, ious, pixels, strict=True):
        known = math.isfinite(iou)
        rows.append(
            f'<tr><td>{swatch(color)}{text_of(name)}</td><td>{100 * count / max(pixels.sum(), 1):.2f} %</td>'
            f'<td>{f"{iou:.2f}" if known else "–"}</td>'
            f'<td><span class="bar" style="width:{4 * iou if known else 0:.0f}px"></span></td></tr>')
    return ('<h2>IoU of each class</h2><table class="bars"><tr><th>class</th><th>of the labelled pixels</th>'
            f'<th>IoU, %</th><th></th></tr>{"".join(rows)}</table>')


def confusions(confusion: np.ndarray) -> list[tuple[int, int, float]]:
    """``(label, prediction, share)`` of what is taken for something else most, by share of the label's pixels."""
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind='stable')[:LISTED]
    found = [(*map(int, np.unravel_index(place, shares.shape)), float(shares.flat[place])) for place in order]
    return [entry for entry in found if entry[2] > 0]


def matrix(content: Content) -> str:
    """The confusion matrix in per cent of each label's pixels, and its largest entries beside the diagonal."""
    listed = ''.join(f'<li>{text_of(content.classes[label])} taken for {text_of(content.classes[found])}: '
                     f'{100 * share:.1f} % of its pixels</li>' for label, found, share in confusions(content.confusion))
    table = f'<p>The matrix of {len(content.classes)} classes is left out.</p>'
    if len(content.classes) <= MATRIX_CLASSES:
        shares = 100 * content.confusion / np.maximum(content.confusion.sum(1, keepdims=True), 1)
        header = ''.join(f'<th>{text_of(name)}</th>' for name in content.classes)
        rows = ''.join(f'<tr><th>{text_of(name)}</th>' + ''.join(
            f'<td style="background:rgba(34,102,170,{share / 100:.2f});color:{"#fff" if share > 55 else "#222"}">'
            f'{share:.0f}</td>' for share in row) + '</tr>' for name, row in zip(content.classes, shares, strict=True))
        table = ('<p>A row is what is labelled, a column what is predicted, in per cent of the row.</p>'
                 f'<table class="matrix"><tr><th></th>{header}</tr>{rows}</table>')
    return f'<h2>Confusions</h2><ul>{listed}</ul>{table}'


def worst_images(content: Content) -> str:
    figures = []
    for image in content.worst:
        picture = '' if image.jpeg is None else (
            '<img alt="image, label and prediction" '
            f'src="data:image/jpeg;base64,{base64.b64encode(image.jpeg).decode()}">')
        figures.append(f'<figure>{picture}<figcaption>{text_of(image.name)}: {image.score:.1f} %. '
                       f'{text_of(image.words)}</figcaption></figure>')
    return ('<h2>The worst validation images</h2><p>Image, label and prediction; the mean IoU over the classes that '
            f'the label has.</p>{"".join(figures)}')


def page(content: Content) -> str:
    facts = ''.join(f'<tr><td>{text_of(name)}</td><td>{text_of(value)}</td></tr>' for name, value in content.facts)
    known = content.confusion is not None
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{text_of(content.title)}</title>'
        f'<style>{STYLE}</style></head><body><h1>{text_of(content.title)}</h1><table>{facts}</table>'
        f'<h2>mIoU</h2>{chart(content.validations, "mIoU of the validations", "mIoU, %", dots=True)}'
        f'<h2>Loss</h2>{chart(content.losses, "Training loss", "loss")}'
        f'{bars(content) + matrix(content) if known else ""}{worst_images(content) if content.worst else ""}'
        '</body></html>\n')

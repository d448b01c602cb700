"""A contact sheet of overlays, and a page that shows all that a check found, in one file."""
import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...files import replacing, write_text
from ..decoding import FORMATS
from ..fonts import legend_font
from ..importing.pictures import rgb_of
from ..importing.tree import CHECK_PAGE, CHECK_SHEET
from ..threads import any_size
from .listing import Item, Listing
from .looking import Findings, class_rows, first_and_last, mask_of

CELL, COLUMNS, MOST = (240, 180), 4, 24
LINE, FONT = 20, 13
STYLE = '''body{font:15px/1.45 system-ui,sans-serif;max-width:1020px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse}td,th{padding:.15em .8em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.bar{display:inline-block;height:.7em;background:#3a7}
.swatch{display:inline-block;width:.9em;height:.9em;border:1px solid #333;margin-right:.4em}
img{max-width:100%}.error{color:#b00}.warning{color:#a60}li{overflow-wrap:anywhere}'''


def chosen(listing: Listing, findings: Findings, most: int = MOST) -> list[Item]:
    """The items to show: for each class the one with the most of it, then others, evenly spread."""
    usable = [i for i, look in enumerate(findings.looks) if look.counts is not None]
    if not usable:
        return []
    counts = np.array([findings.looks[i].counts for i in usable])
    picked = dict.fromkeys(int(counts[:, value].argmax()) for value in range(*first_and_last(listing).indices(256))
                           if counts[:, value].any())
    spread = np.linspace(0, len(usable) - 1, min(most, len(usable))).round().astype(int)
    picked = list(dict.fromkeys([*list(picked)[:most // 2], *spread.tolist()]))[:most]
    return [listing.items[usable[i]] for i in sorted(picked)]


def overlay(item: Item, listing: Listing) -> Image.Image:
    """A thumbnail under the colours of its classes; pixels that do not count are left as they are."""
    with any_size(), Image.open(item.image, formats=FORMATS) as file:
        picture = rgb_of(file, 'high-byte')
    factor = min(CELL[0] / picture.width, CELL[1] / picture.height)
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    small = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)
    mask = np.asarray(Image.fromarray(mask_of(item.mask)).resize(size, Image.Resampling.NEAREST))
    known = (mask != 255) & (mask >= listing.first)
    colors = listing.palette[np.where(known, mask - listing.first, 0)]
    return Image.fromarray(np.where(known[..., None], 0.5 * small + 0.5 * colors, small).round().astype(np.uint8))


def contact_sheet(listing: Listing, findings: Findings) -> Image.Image | None:
    """Overlays with their names, and a legend; None where no mask can be shown."""
    items = chosen(listing, findings)
    if not items:
        return None
    font = legend_font(FONT)
    rows = -(-len(items) // COLUMNS)
    legend = [(name, listing.palette[index].tolist()) for index, name, _ in class_rows(listing, findings)]
    width = COLUMNS * (CELL[0] + 4)
    column = max(int(font.getlength(name)) for name, _ in legend) + 40 if legend else width
    per_row = max(1, width // column)
    height = rows * (CELL[1] + LINE) + -(-len(legend) // per_row) * LINE + 8
    sheet = Image.new('RGB', (width, height), 'white')
    pen = ImageDraw.Draw(sheet)
    for k, item in enumerate(items):
        left, top = k % COLUMNS * (CELL[0] + 4), k // COLUMNS * (CELL[1] + LINE)
        sheet.paste(overlay(item, listing), (left, top))
        text = f'{item.split[:5]} {item.image.name}'
        while font.getlength(text) > CELL[0] and len(text) > 8:
            text = text[:-2] + '…'
        pen.text((left + 2, top + CELL[1] + 2), text, 'black', font)
    for k, (name, color) in enumerate(legend):
        left, top = k % per_row * column + 4, rows * (CELL[1] + LINE) + 6 + k // per_row * LINE
        pen.rectangle((left, top, left + FONT, top + FONT), tuple(color), 'black')
        pen.text((left + FONT + 6, top - 1), name, 'black', font)
    return sheet


def page(listing: Listing, findings: Findings, sheet: Image.Image | None, about: str) -> str:
    """The page, without scripts and without anything from elsewhere; names of files and classes are escaped."""
    text = html.escape
    splits = list(findings.counts)
    rows = []
    for index, name, cells in class_rows(listing, findings):
        red, green, blue = listing.palette[index].tolist()
        rows.append(
            f'<tr><td><span class="swatch" style="background:rgb({red},{green},{blue})"></span>{text(name)}</td>'
            + ''.join(
                f'<td>{100 * share:.2f} % <span class="bar" style="width:{120 * share:.0f}px"></span></td>'
                f'<td>{images}</td>'
                for _, share, images in cells
            )
            + '</tr>'
        )
    header = ''.join(f'<th>{text(split)}, share of the labelled pixels</th><th>in images</th>' for split in splits)

    def listed(lines, kind):
        return f'<h2 class="{kind}">{len(lines)} {kind}s</h2><ul>' + ''.join(
            f'<li>{text(line)}</li>' for line in lines) + '</ul>' if lines else ''

    picture = ''
    if sheet is not None:
        content = io.BytesIO()
        sheet.save(content, 'JPEG', quality=85)
        encoded = base64.b64encode(content.getvalue()).decode()
        picture = f'<h2>Overlays</h2><img alt="overlays" src="data:image/jpeg;base64,{encoded}">'
    sizes = ''.join(f'<tr><td>{width}×{height}</td><td>{count}</td></tr>'
                    for (width, height), count in findings.sizes.most_common(20))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<title>{text(listing.name)}</title><style>{STYLE}</style>'
        f'<h1>{text(listing.name)}</h1><p>{text(about)}</p>{listed(findings.errors, "error")}'
        f'{listed(findings.warnings, "warning")}<h2>Classes</h2><table><tr><th>class</th>{header}</tr>{"".join(rows)}'
        f'</table><h2>Sizes</h2><table><tr><th>pixels</th><th>images</th></tr>{sizes}</table>{picture}</html>\n'
    )


def write_page(listing: Listing, findings: Findings, out: str | Path, about: str) -> list[Path]:
    """Write ``check.html`` and ``check.png`` to a folder; their paths."""
    sheet, written = contact_sheet(listing, findings), [Path(out) / CHECK_PAGE]
    write_text(written[0], page(listing, findings, sheet, about))
    if sheet is not None:
        written.append(Path(out) / CHECK_SHEET)
        with replacing(written[1]) as temporary:
            sheet.save(temporary)
    return written

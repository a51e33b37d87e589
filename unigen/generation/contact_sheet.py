# SPDX-License-Identifier: Apache-2.0
"""Many images with their captions on one sheet."""

from collections.abc import Sequence

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

SMALLEST_SIDE, LARGEST_SIDE = 160, 320
MOST_LINES = 4
_MARGIN = 14
_FONT_SIZE = 13
_PAPER, _INK = (255, 255, 255), (40, 44, 52)


def contact_sheet(images: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """Images in rows of `columns`, each above its caption; tiny ones are enlarged without smoothing."""
    assert images
    assert len(images) == len(captions)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), _FONT_SIZE)
    shown = [_at_readable_size(image) for image in images]
    width = max(image.width for image in shown)
    texts = [_wrapped(caption, font, width) for caption in captions]
    rows = [range(start, min(start + columns, len(shown))) for start in range(0, len(shown), columns)]
    line_height = _FONT_SIZE + 4
    heights = [
        max(shown[i].height for i in row) + line_height * max(len(texts[i]) for i in row) + 2 * _MARGIN for row in rows
    ]
    num_columns = min(columns, len(shown))
    sheet = Image.new("RGB", (num_columns * (width + _MARGIN) + _MARGIN, sum(heights) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for place, index in enumerate(row):
            left = _MARGIN + place * (width + _MARGIN)
            sheet.paste(shown[index], (left, top))
            for number, line in enumerate(texts[index]):
                draw.text((left, top + shown[index].height + 5 + number * line_height), line, _INK, font)
        top += height
    return sheet


def _at_readable_size(image: Image.Image) -> Image.Image:
    side = max(image.size)
    if side < SMALLEST_SIDE:
        factor = -(-SMALLEST_SIDE // side)
        return image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if side > LARGEST_SIDE:
        width, height = (max(1, size * LARGEST_SIDE // side) for size in image.size)
        return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    return image.convert("RGB")


def _wrapped(caption: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width`; what does not fit into MOST_LINES ends in an ellipsis."""
    lines = [""]
    for word in caption.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    lines = [_shortened(line, font, width) for line in lines]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], _shortened(lines[MOST_LINES - 1] + " …", font, width)]
    return lines


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"

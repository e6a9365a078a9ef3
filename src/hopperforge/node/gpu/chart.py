"""The chart of a bench: one panel for each direction, dtype, head dim and mask; a line for each implementation.

SVG on white, of ElementTree, so that it is well-formed whatever the names hold. The colours are those of Okabe and Ito,
which the colour-blind tell apart; every implementation has a marker of its own as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from hopperforge.node.gpu.bench import Row
from hopperforge.node.gpu.words import BACKENDS, CHOOSER

LOOKS = {
    CHOOSER: ("#332288", "halo"),
    "fa3_fwd": ("#0072b2", "circle"),
    "flash_attn_3": ("#56b4e9", "circle"),
    "flash_attn_2": ("#009e73", "square"),
    "fp32": ("#000000", "circle"),
    "sdpa_cudnn": ("#d55e00", "triangle"),
    "sdpa_flash": ("#cc79a7", "diamond"),
    "sdpa_efficient": ("#e69f00", "down"),
    "sdpa_math": ("#666666", "cross"),
    "eager": ("#882255", "ring"),
}
"""Colour and marker of each."""
LABELS = {
    CHOOSER: "hopper_attention, its choice",
    "fa3_fwd": "FlashAttention-3 (fa3_fwd)",
    "flash_attn_3": "FlashAttention-3 (flash_attn_3)",
    "flash_attn_2": "FlashAttention-2",
    "fp32": "flash-attn-fp32",
    "sdpa_cudnn": "torch SDPA: cuDNN",
    "sdpa_flash": "torch SDPA: flash",
    "sdpa_efficient": "torch SDPA: efficient",
    "sdpa_math": "torch SDPA: math",
    "eager": "torch eager",
}
_DRAWN = (*(name for name in BACKENDS if name != CHOOSER), CHOOSER)
"""What chooses among the others lies around one of them, and so is drawn last."""
_RADII = {"circle": "5.6", "ring": "5.6", "halo": "9"}
WIDTH = 1280
_MARGIN, _TOP, _GAP, _AXIS = 40, 92, 34, 58
_PANEL = 430  # height
_LEGEND = 104
_INK, _PALE, _GRID = "#1a1a1a", "#595959", "#e2e2e2"
_FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class _Frame:
    """Where a panel's axes are, and what they hold."""

    left: float
    top: float
    width: float
    height: float
    seqlens: tuple[int, ...]
    highest: float

    def x(self, seqlen: int) -> float:
        """Lengths stand at equal distances, in their order."""
        return self.left + self.width * (self.seqlens.index(seqlen) + 0.5) / len(self.seqlens)

    def y(self, value: float) -> float:
        """TFLOP/s, from 0 on."""
        return self.top + self.height * (1 - value / self.highest)


def chart(title: str, subtitle: str, rows: Sequence[Row], peak: float) -> str:
    """Draw the rows that have times; `peak` is the dashed line, TFLOP/s of matmul."""
    panels = list(dict.fromkeys(row.shape.panel for row in rows))
    columns = min(len(panels), 2)
    lines = math.ceil(len(panels) / columns)
    height = _TOP + lines * _PANEL + _LEGEND
    size = {"width": str(WIDTH), "height": str(height), "viewBox": f"0 0 {WIDTH} {height}", "role": "img"}
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "font-family": _FONT})
    ET.SubElement(svg, "title").text = f"{title}. {subtitle}"
    ET.SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    _text(svg, _MARGIN, 44, title, size=27, weight="bold")
    _text(svg, _MARGIN, 74, subtitle, size=17, fill=_PALE)
    wide = (WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) / columns
    highest = _round_up(max([peak, *(row.tflops for row in rows if row.tflops is not None)]))
    for index, panel in enumerate(panels):
        mine = [row for row in rows if row.shape.panel == panel]
        left = _MARGIN + (index % columns) * (wide + _GAP)
        top = _TOP + (index // columns) * _PANEL
        seqlens = tuple(sorted({row.shape.seqlen for row in mine}))
        frame = _Frame(left + _AXIS, top + 42, wide - _AXIS, _PANEL - 112, seqlens, highest)
        _panel(svg, frame, panel, mine, peak)
    _legend(svg, height - _LEGEND + 26, [name for name in BACKENDS if any(_timed(row, name) for row in rows)])
    return ET.tostring(svg, encoding="unicode") + "\n"


def _timed(row: Row, name: str) -> bool:
    return row.backend == name and row.times is not None


def _round_up(value: float) -> float:
    """Give the end of an axis that has room above a value: 1, 2 or 5 of a power of ten, four to nine times."""
    step = _step(value)
    return step * math.ceil(value * 1.02 / step)


def _step(value: float) -> float:
    rough = value / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(times for times in (1, 2, 5, 10) if rough <= times * power)


def _panel(svg: ET.Element, frame: _Frame, title: str, rows: Sequence[Row], peak: float) -> None:
    _text(svg, frame.left, frame.top - 16, title[0].upper() + title[1:], size=18, weight="bold")
    _axes(svg, frame)
    y, right = frame.y(peak), frame.left + frame.width
    _line(svg, (frame.left, y), (right, y), stroke=_INK, dash="7 5", width=1.6)
    _text(svg, right, y - 6, f"this GPU's bf16 matmul, {peak:.0f}", size=13, anchor="end", fill=_INK)
    timed = {name: [row for row in rows if _timed(row, name)] for name in _DRAWN}
    there = [name for name in BACKENDS if timed[name]]
    if len(frame.seqlens) == 1:
        for index, name in enumerate(there):
            _bar(svg, frame, timed[name][0], frame.left + frame.width * (index + 0.5) / len(there))
        return
    for name in (name for name in _DRAWN if timed[name]):
        _series(svg, frame, name, sorted(timed[name], key=lambda row: row.shape.seqlen))


def _axes(svg: ET.Element, frame: _Frame) -> None:
    bottom, right = frame.top + frame.height, frame.left + frame.width
    step = _step(frame.highest)
    for index in range(round(frame.highest / step) + 1):
        y = frame.y(index * step)
        _line(svg, (frame.left, y), (right, y), stroke=_INK if index == 0 else _GRID, width=1.2)
        _text(svg, frame.left - 8, y + 5, f"{index * step:g}", size=14, anchor="end", fill=_PALE)
    for seqlen in frame.seqlens:
        _text(svg, frame.x(seqlen), bottom + 21, f"{seqlen:,}", size=14, anchor="middle", fill=_PALE)
    _text(svg, frame.left + frame.width / 2, bottom + 43, "sequence length (tokens)", size=15, anchor="middle")
    middle, x = frame.top + frame.height / 2, frame.left - 46
    turned = _text(svg, x, middle, "TFLOP/s", size=15, anchor="middle")
    turned.set("transform", f"rotate(-90 {x:.1f} {middle:.1f})")


def _series(svg: ET.Element, frame: _Frame, name: str, rows: Sequence[Row]) -> None:
    colour, marker = LOOKS[name]
    group = ET.SubElement(svg, "g", {"data-series": name, "data-panel": rows[0].shape.panel})
    points = [(frame.x(row.shape.seqlen), frame.y(row.tflops or 0)) for row in rows]
    path = {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), "fill": "none"}
    dash = {"stroke-dasharray": "3 5"} if marker == "halo" else {}
    ET.SubElement(group, "polyline", {**path, **dash, "stroke": colour, "stroke-width": "2.6"})
    for row, (x, y) in zip(rows, points):
        _quartiles(group, frame, row, x, colour)
        _label(_mark(group, marker, x, y, colour), row)


def _bar(svg: ET.Element, frame: _Frame, row: Row, x: float) -> None:
    """Draw the one length of a panel as a bar, with its value above."""
    colour, _ = LOOKS[row.backend]
    group = ET.SubElement(svg, "g", {"data-series": row.backend, "data-panel": row.shape.panel})
    top, wide = frame.y(row.tflops or 0), 44
    place = {"x": f"{x - wide / 2:.1f}", "y": f"{top:.1f}", "width": str(wide)}
    height = f"{frame.top + frame.height - top:.1f}"
    _label(ET.SubElement(group, "rect", {**place, "height": height, "fill": colour}), row)
    _quartiles(group, frame, row, x, _INK)
    _text(group, x, top - 9, f"{row.tflops:.0f}", size=14, anchor="middle")


def _quartiles(group: ET.Element, frame: _Frame, row: Row, x: float, colour: str) -> None:
    if row.times is not None:
        low, high = (frame.y(row.shape.operations / time / 1e9) for time in (row.times.low, row.times.high))
        _line(group, (x, low), (x, high), stroke=colour, width=5, opacity="0.45")


def _label(mark: ET.Element, row: Row) -> None:
    """Keep the value with its mark, for programs and for whoever points at it."""
    mark.set("data-value", f"{row.tflops:.1f}")
    mark.set("data-seqlen", str(row.shape.seqlen))
    name = LABELS[row.backend]
    ET.SubElement(mark, "title").text = f"{name}, length {row.shape.seqlen:,}: {row.tflops:.1f} TFLOP/s"


def _legend(svg: ET.Element, top: float, names: Iterable[str]) -> None:
    """Write the names, four in a line."""
    for index, name in enumerate(names):
        x, y = _MARGIN + (index % 4) * 302, top + (index // 4) * 26
        colour, marker = LOOKS[name]
        _line(svg, (x, y), (x + 30, y), stroke=colour, width=2.6)
        _mark(svg, marker, x + 15, y, colour)
        _text(svg, x + 38, y + 5, LABELS[name], size=15)


def _mark(parent: ET.Element, marker: str, x: float, y: float, colour: str) -> ET.Element:
    shapes: dict[str, list[tuple[float, float]]] = {
        "square": [(-5, -5), (5, -5), (5, 5), (-5, 5)],
        "triangle": [(0, -7), (6.5, 5), (-6.5, 5)],
        "down": [(0, 7), (6.5, -5), (-6.5, -5)],
        "diamond": [(0, -7.5), (6.5, 0), (0, 7.5), (-6.5, 0)],
        "cross": [
            (-6, -3),
            (-3, -6),
            (0, -3),
            (3, -6),
            (6, -3),
            (3, 0),
            (6, 3),
            (3, 6),
            (0, 3),
            (-3, 6),
            (-6, 3),
            (-3, 0),
        ],
    }
    look = {"fill": colour, "stroke": "#ffffff", "stroke-width": "1.2"}
    open_ = {"fill": "none" if marker == "halo" else "#ffffff", "stroke": colour, "stroke-width": "2.4"}
    if marker in _RADII:
        place = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": _RADII[marker]}
        return ET.SubElement(parent, "circle", {**place, **(look if marker == "circle" else open_)})
    corners = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in shapes[marker])
    return ET.SubElement(parent, "polygon", {"points": corners, **look})


def _line(
    parent: ET.Element,
    begin: tuple[float, float],
    end: tuple[float, float],
    *,
    stroke: str,
    width: float,
    dash: str = "none",
    opacity: str = "1",
) -> None:
    places = dict(zip(("x1", "y1", "x2", "y2"), (f"{part:.1f}" for part in (*begin, *end))))
    look = {"stroke": stroke, "stroke-width": f"{width:g}", "stroke-dasharray": dash, "stroke-opacity": opacity}
    ET.SubElement(parent, "line", {**places, **look})


def _text(
    parent: ET.Element,
    x: float,
    y: float,
    words: str,
    *,
    size: int,
    weight: str = "normal",
    anchor: str = "start",
    fill: str = _INK,
) -> ET.Element:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-size": str(size), "font-weight": weight}
    element = ET.SubElement(parent, "text", {**place, "text-anchor": anchor, "fill": fill})
    element.text = words
    return element

"""Draw ViK, its block and its mixer into block-light.svg and block-dark.svg: ``python docs/pictures/draw_block.py``."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
WIDTH, HEIGHT = 640, 542
# Text and lines, a box and its edge, a path beside the boxes, and the three steps of the mixer with their icons.
PALETTES = {
    'light': dict(
        ink='#1f2328', faint='#59636e', box='#f6f8fa', edge='#8c959f', steps=('#0550ae', '#1a7f37', '#8250df')
    ),
    'dark': dict(
        ink='#f0f6fc', faint='#9198a1', box='#21262d', edge='#6e7681', steps=('#79c0ff', '#56d364', '#d2a8ff')
    ),
}
CELLS = 14  # pixels of an icon's map, two patches of 7 in each direction


class Drawing:
    """Lines of an SVG file in the colours of a palette."""

    def __init__(self, palette: dict):
        self.palette = palette
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial, '
            'sans-serif" font-size="15" role="img">',
            '<title>ViK, its block and its token mixer</title>',
        ]

    def text(self, x: float, y: float, text: str, color: str = 'ink', anchor: str = 'middle', **style) -> None:
        """Write a line of text."""
        style = ''.join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
        fill = self.palette.get(color, color)
        self.lines.append(f'<text x="{x}" y="{y}" fill="{fill}" text-anchor="{anchor}"{style}>{text}</text>')

    def rect(self, x: float, y: float, width: float, height: float, fill: str, edge: str = 'none', **style) -> None:
        """Draw a rectangle."""
        style = ''.join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
        fill, edge = (self.palette.get(color, color) for color in (fill, edge))
        size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self.lines.append(f'<rect {size} fill="{fill}" stroke="{edge}"{style}/>')

    def box(self, x: float, y: float, width: float, height: float, *texts: str, edge: str = 'edge') -> None:
        """Draw a box with a line of text or two in its middle; the second is small."""
        self.rect(x, y, width, height, 'box', edge, rx=6, stroke_width=1.5)
        first = y + height / 2 + (5 if len(texts) == 1 else -3)
        self.text(x + width / 2, first, texts[0])
        for text in texts[1:]:
            self.text(x + width / 2, first + 18, text, 'faint', font_size=13)

    def path(self, points: str, head: bool = True) -> None:
        """Draw a line through points, with an arrowhead at its end."""
        color = self.palette['faint']
        self.lines.append(f'<path d="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        if head:
            *_, before, last = (tuple(map(float, point.split(','))) for point in points[1:].replace('L', ' ').split())
            dx, dy = (0 if b == a else (b - a) / abs(b - a) for a, b in zip(before, last))
            x, y = last
            corners = [(x, y), (x - 7 * dx + 4 * dy, y - 7 * dy + 4 * dx), (x - 7 * dx - 4 * dy, y - 7 * dy - 4 * dx)]
            corners = ' '.join(f'{a:g},{b:g}' for a, b in corners)
            self.lines.append(f'<polygon points="{corners}" fill="{color}"/>')

    def plus(self, x: float, y: float) -> None:
        """Draw a sum."""
        ink = self.palette['faint']
        self.lines.append(f'<circle cx="{x}" cy="{y}" r="9" fill="none" stroke="{ink}" stroke-width="1.5"/>')
        self.lines.append(f'<path d="M{x - 5},{y} h10 M{x},{y - 5} v10" stroke="{ink}" stroke-width="1.5"/>')

    def icon(self, x: float, y: float, side: float, seen, color: str) -> None:
        """Draw a map of pixels: the one that is computed, and those that it sees."""
        cell = side / CELLS
        me = (9, 10)
        pixels = [(row, column) for row in range(CELLS) for column in range(CELLS)]
        groups = [
            ('box', [pixel for pixel in pixels if not seen(*pixel)]),
            (color, [pixel for pixel in pixels if seen(*pixel) and pixel != me]),
            ('ink', [me]),
        ]
        for fill, group in groups:
            squares = ''.join(
                f'M{x + column * cell:g},{y + row * cell:g}h{cell - 1:g}v{cell - 1:g}h{1 - cell:g}z'
                for row, column in group
            )
            opacity = ' opacity="0.75"' if fill == color else ''
            self.lines.append(f'<path d="{squares}" fill="{self.palette.get(fill, fill)}"{opacity}/>')
        self.rect(x - 1.5, y - 1.5, side + 2, side + 2, 'none', 'edge')

    def finish(self) -> str:
        """Close the file."""
        return '\n'.join([*self.lines, '</svg>', ''])


def draw_network(drawing: Drawing, y: float) -> None:
    """From the image to the maps of the four stages."""
    drawing.text(12, y, 'ViK', anchor='start', font_weight='bold')
    drawing.text(46, y, 'gives a map of each stage to a neck or head', 'faint', anchor='start', font_size=13)
    y += 18
    drawing.text(12, y + 30, 'image', anchor='start')
    drawing.path(f'M56,{y + 25}L76,{y + 25}')
    drawing.box(76, y, 84, 50, 'stem', 'conv 7×7')
    for k in range(4):
        x = 184 + 114 * k
        drawing.path(f'M{x - (24 if k == 0 else 16)},{y + 25}L{x},{y + 25}')
        drawing.box(x, y, 98, 50, f'stage {k + 1}', 'blocks')
        drawing.path(f'M{x + 49},{y + 50}L{x + 49},{y + 70}')
        drawing.text(x + 49, y + 86, f'1/{4 * 2**k} size', 'faint', font_size=13)


def draw_block(drawing: Drawing, y: float) -> None:
    """Two residual branches: mixer and MLP."""
    drawing.text(12, y, 'Block', anchor='start', font_weight='bold')
    drawing.text(62, y, 'x + s₁ · mixer(norm(x)), then x + s₂ · MLP(norm(x))', 'faint', anchor='start', font_size=13)
    y += 44
    middle = y + 22
    drawing.text(16, middle + 5, 'x')
    drawing.path(f'M26,{middle}L56,{middle}')
    drawing.box(56, y, 60, 44, 'norm')
    drawing.path(f'M116,{middle}L130,{middle}')
    drawing.box(130, y, 168, 44, 'MultiPatch-RBFKAN')
    drawing.path(f'M298,{middle}L331,{middle}')
    drawing.text(313, middle - 7, '· s₁', 'faint', font_size=13)
    drawing.plus(340, middle)
    drawing.path(f'M349,{middle}L384,{middle}')
    drawing.box(384, y, 60, 44, 'norm')
    drawing.path(f'M444,{middle}L458,{middle}')
    drawing.box(458, y, 66, 44, 'MLP')
    drawing.path(f'M524,{middle}L559,{middle}')
    drawing.text(541, middle - 7, '· s₂', 'faint', font_size=13)
    drawing.plus(568, middle)
    drawing.path(f'M577,{middle}L612,{middle}')
    for start, end in ((40, 340), (366, 568)):
        drawing.path(f'M{start},{middle}L{start},{y - 18}L{end},{y - 18}L{end},{middle - 9}')


def draw_mixer(drawing: Drawing, y: float) -> None:
    """Three steps, each with the pixels that reach one pixel."""
    drawing.text(12, y, 'MultiPatch-RBFKAN', anchor='start', font_weight='bold')
    note = 'each channel by itself; coloured: what the marked pixel sees'
    drawing.text(166, y, note, 'faint', anchor='start', font_size=13)
    y += 18
    steps = [
        (
            '1  patch step',
            lambda r, c: r >= 7 and c >= 7,
            ('a KAN of 8 learned', 'Gaussians a pixel', 'mixes 7×7 pixels'),
        ),
        (
            '2  axis step',
            lambda r, c: abs(r - 9) + abs(c - 10) <= 1,
            ('convs 3×1 and 1×3,', 'blended by two', 'weights an image'),
        ),
        ('3  global step', lambda r, c: True, ('a map of rank 64', 'joins all pixels', 'of a fixed grid')),
    ]
    for k, (title, seen, lines) in enumerate(steps):
        x, color = 12 + 212 * k, drawing.palette['steps'][k]
        drawing.rect(x, y, 192, 216, 'none', 'edge', rx=6, stroke_width=1.5)
        drawing.text(x + 96, y + 24, title, color, font_weight='bold')
        drawing.icon(x + 47, y + 40, 98, seen, color)
        for row, line in enumerate(lines):
            drawing.text(x + 96, y + 164 + 19 * row, line)
        if k:
            drawing.path(f'M{x - 20},{y + 89}L{x},{y + 89}')


def draw(theme: str) -> str:
    """Draw everything in the colours of a theme, 'light' or 'dark'."""
    drawing = Drawing(PALETTES[theme])
    draw_network(drawing, 20)
    draw_block(drawing, 166)
    draw_mixer(drawing, 296)
    return drawing.finish()


def main() -> None:
    """Write both files."""
    for theme in PALETTES:
        (FOLDER / f'block-{theme}.svg').write_text(draw(theme))


if __name__ == '__main__':
    main()

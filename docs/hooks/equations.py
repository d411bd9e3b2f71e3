"""Draws equations to SVG when the site is built, from the TeX that matplotlib supports.

A page then needs no script and no font from elsewhere, and equations have the colour of the text.
"""

import html as html_text
import re

import matplotlib
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.path import Path
from matplotlib.textpath import TextPath

_SIZE = 10.0  # Points. Only lengths relative to it are used.
# What arithmatex makes of $...$ and $$...$$.
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}


def draw(html: str, page: str) -> str:
  """Replaces the equations of a page; raises ValueError that names the page and the equation."""

  def picture(match: re.Match) -> str:
    tag, kind, tex = match[1], match[2], " ".join(html_text.unescape(match[3]).split())
    try:  # An equation on its own line has room for fractions of full size.
      shape = svg(tex.replace("\\frac", "\\dfrac") if kind == "[" else tex)
    except ValueError as error:
      raise ValueError(f"docs/{page}: ${tex}$ cannot be drawn: {error}") from error
    return f'<{tag} class="equation{" block" if kind == "[" else ""}">{shape}</{tag}>'

  return _EQUATION.sub(picture, html)


def svg(tex: str) -> str:
  """Returns an equation as SVG, with lengths in em and on the baseline of the text."""
  with matplotlib.rc_context({"mathtext.fontset": "cm"}):
    properties = FontProperties(size=_SIZE)
    size = MathTextParser("path").parse(f"${tex}$", 72, properties)
    path = TextPath((0, 0), f"${tex}$", prop=properties)
  steps = []
  for points, code in path.iter_segments(simplify=False, curves=True):
    numbers = [f"{v if i % 2 == 0 else -v:.2f}" for i, v in enumerate(points)]
    steps.append(_LETTERS[code] + ("" if code == Path.CLOSEPOLY else " ".join(numbers)))
  width, height, depth = (float(v) for v in (size.width, size.height, size.depth))
  box = f"-0.2 {depth - height - 0.2:.2f} {width + 0.4:.2f} {height + 0.4:.2f}"
  return (
    f'<svg role="img" aria-label="{html_text.escape(tex)}" viewBox="{box}" style="width:'
    f"{(width + 0.4) / _SIZE:.3f}em;height:{(height + 0.4) / _SIZE:.3f}em;vertical-align:"
    f'{-(depth + 0.2) / _SIZE:.3f}em" fill="currentColor"><path d="{"".join(steps)}"/></svg>'
  )

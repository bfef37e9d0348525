"""How Sphinx builds this folder; ``make docs`` calls it."""

import re

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import SphinxError

from vik_mm.version import __version__

project = 'vik_mm'
author = 'the vik_mm maintainers'
release = version = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['data']
# The pages are Markdown that a repository's browser shows too; a line of ::: is all that it does not know.
myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 4
highlight_language = 'none'  # of blocks that do not name theirs: drawings and formulas

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the docstrings name each type
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = ['Shape', ('Source', 'notes_style')]
napoleon_use_ivar = True  # fields of a class are a list in its docstring
napoleon_use_rtype = False  # 'tuple[Tensor, ...]: what it is' stays one line
add_module_names = False
python_use_unqualified_type_names = True
# A public name of this package in a docstring must exist; names of other packages have no page to lead to.
nitpicky = True
nitpick_ignore_regex = [(r'py:.*', r'(?!vik_mm\.).*|.*\._\w+')]

html_theme = 'furo'
html_title = f'vik_mm {__version__}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_math_renderer = 'mathml'
html_show_copyright = False

# `make docs-links` follows links to other sites; those inside this one are checked by each build.
linkcheck_timeout = 20
linkcheck_retries = 2


def mathml(tex: str, is_block: bool) -> str:
    """Turn a formula into MathML, which browsers draw without a script from another site."""
    tex = re.sub(r'(\\[dt]?frac)(\d)(\d)', r'\1{\2}{\3}', tex)  # docutils reads \frac12 as twelve over what follows
    try:
        return tex2mathml(tex, as_block=is_block)
    except MathError as error:
        raise SphinxError(f'{error} in the formula {tex!r}') from error


def write_formula(translator, node) -> None:
    """Write a formula in a line of text."""
    translator.body.append(mathml(node.astext(), is_block=False))
    raise SkipNode


def write_displayed_formula(translator, node) -> None:
    r"""Write a formula on lines of its own; what \quad sets apart may go to the next line in a narrow window."""
    parts = re.split(r'\\q?quad\b', node.astext())
    parts = [f'<div>{mathml(tex.strip(), is_block=True)}</div>' for tex in parts]
    translator.body.append(f'<div class="formula">{"".join(parts)}</div>')
    raise SkipNode


def skip_fields(app, what, name, member, skip, options) -> bool | None:
    """Leave out the fields of named tuples, which the docstring of their class names."""
    return True if (getattr(member, '__doc__', None) or '').startswith('Alias for field number') else None


def setup(app) -> None:
    """Tell Sphinx of the functions above."""
    app.connect('autodoc-skip-member', skip_fields)
    app.add_html_math_renderer('mathml', (write_formula, None), (write_displayed_formula, None))

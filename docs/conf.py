"""How the documentation is built: from Markdown, docstrings and executed notebooks, without a network."""

import ast
import dataclasses
import functools
import inspect
import re
import shutil
import sys
import textwrap
from pathlib import Path

from sphinx.ext.napoleon import GoogleDocstring

import laconic
from laconic.recipes import registry

HERE = Path(__file__).parent

# Notebooks are committed with their outputs, and the tests run them: here they are only shown.
shutil.copytree(HERE.parent / "examples", HERE / "examples", dirs_exist_ok=True)

project = "Laconic"
author = "The Laconic authors"
version = release = laconic.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_render_markdown_format = "myst"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as written, not the repr of a partial
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # the signature above them has the types
napoleon_custom_sections = [("Attributes", "params_style")]
copybutton_prompt_text = "$ "  # what is copied can be pasted into a shell
copybutton_line_continuation_character = "\\"
default_role = "code"  # `names` in docstrings are code, as in Markdown

html_theme = "furo"
html_title = f"Laconic {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css", "figures.css"]
pygments_dark_style = "github-dark"  # does not underline what is no link
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False


def _unsplit(lines_of):
    """A section of text that napoleon would split at its first colon into a type and a description."""
    return lambda self, *_, **__: self.__class__(self._dedent(lines_of(self)), self._config).lines()


# Types stand in signatures: a colon in a property's docstring or under `Returns:` is punctuation.
_property, _returns = (
    _unsplit(read) for read in (GoogleDocstring._consume_to_end, GoogleDocstring._consume_to_next_section)
)
GoogleDocstring._consume_inline_attribute = lambda self: ("", _property(self))
GoogleDocstring._consume_returns_section = lambda self, *_, **__: [("", "", _returns(self))]


def fields_as_written(app, what, name, found, options, signature, returns):  # noqa: PLR0913 – Sphinx calls it so
    """The signature of a dataclass as its source has it: `curve=cubic`, not `<function cubic>`."""
    if what != "class" or not isinstance(found, type):
        return None
    if getattr(found, "_is_protocol", False) or inspect.isabstract(found):
        return "", None
    if not dataclasses.is_dataclass(found):
        return None
    written = {}
    for base in reversed(found.__mro__):
        written |= _fields(base) if dataclasses.is_dataclass(base) else {}
    fields = [field for field in dataclasses.fields(found) if field.init and field.name[0] != "_"]
    by_position = [written[field.name] for field in fields if not field.kw_only]
    by_name = [written[field.name] for field in fields if field.kw_only]
    shown = by_position + (["*", *by_name] if by_name else [])
    return f"({', '.join(shown)})", None


def _fields(found):
    """Name → declaration of the fields that a class adds."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    lines = [ast.unparse(node) for node in definition.body if isinstance(node, ast.AnnAssign)]
    heads = [re.sub(r" = field\((.*)", lambda m: " = ..." if "default" in m[1] else "", line) for line in lines]
    return {head.partition(":")[0]: head for head in heads}


def skip_noise(app, what, name, found, skip, options):
    """Skip defaults of fields, and implementations: the contract stands on the interface."""
    if isinstance(found, functools.partial):
        return True
    function = inspect.unwrap(getattr(found, "fget", found))
    if not inspect.isfunction(function):
        return None
    return True if name != function.__name__ or _overrides(function) else None


def _overrides(function):
    owner, _, name = function.__qualname__.rpartition(".")
    found = getattr(sys.modules[function.__module__], owner, None)
    bases = found.__mro__[1:] if isinstance(found, type) else ()
    return any(name in vars(base) for base in bases if base.__module__.startswith("laconic."))


def axes_listed(app, page, source):
    """The table of all that a recipe can choose, from the registry."""
    rows = ((axis, f"`{name}`", options and f"`{options}`", what) for axis, name, options, what in registry.rows())
    lines = ["| axis | name | options | |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    source[0] = source[0].replace("<!-- axes -->", "\n".join(lines))


def setup(app):
    app.connect("source-read", axes_listed)
    app.connect("autodoc-process-signature", fields_as_written)
    app.connect("autodoc-skip-member", skip_noise)

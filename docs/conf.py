"""How the documentation is built: from Markdown, docstrings and executed notebooks, without a network."""

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
from pathlib import Path

import laconic

HERE = Path(__file__).parent

# Notebooks are committed with their outputs, and the tests run them: here they are only shown.
shutil.copytree(HERE.parent / "examples", HERE / "examples", dirs_exist_ok=True)

project = "Laconic"
author = "The Laconic authors"
version = release = laconic.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
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
default_role = "code"  # `names` in docstrings are code, as in Markdown

html_theme = "furo"
html_title = f"Laconic {version}"
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False


def fields_as_written(app, what, name, found, options, signature, returns):
    """The signature of a dataclass as its source has it: `curve=cubic`, not `<function cubic>`."""
    if what != "class" or not isinstance(found, type):
        return None
    if getattr(found, "_is_protocol", False):
        return "", None
    if not dataclasses.is_dataclass(found):
        return None
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    written = [ast.unparse(node).partition(" = field(") for node in fields]
    shown = [head + (" = ..." if more else "") for head, more, _ in written if head[0] != "_"]
    # Qualified, or the link would lead to the scope of that name.
    return re.sub(r"\bTensor\b", "torch.Tensor", f"({', '.join(shown)})"), None


def skip_fields(app, what, name, found, skip, options):
    """Skip defaults that are functions: autodoc takes them for methods."""
    return True if inspect.isfunction(found) and name != found.__name__ else None


def setup(app):
    app.connect("autodoc-process-signature", fields_as_written)
    app.connect("autodoc-skip-member", skip_fields)

"""Build the site: ``sphinx-build -W docs build/site``, with the library installed."""

import inspect
import re
import warnings
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.util.inspect import stringify_signature

import spikeloss_xp

HERE = Path(__file__).parent

project = "spikeloss_xp"
author = "the developers of spikeloss_xp"
project_copyright = author
version = release = spikeloss_xp.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxext.opengraph",
]
exclude_patterns = ["build", "inventories", "gallery", "notebooks"]
templates_path = ["_templates"]
nitpicky = True

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc's sections have them
CLASS_ATTRIBUTES = (  # pages on new losses and backends describe them
    *("classes_compete", "compiles_loops", "joins_blocks", "on_host"),
    *("per_step", "smallest_rank", "targets"),
)
autodoc_default_options = {"exclude-members": ", ".join(CLASS_ATTRIBUTES)}
autosummary_generate = True
numpydoc_show_class_members = False  # the template lists them
toc_object_entries_show_parents = "hide"  # whole names are too long for the sidebar
# all except these
numpydoc_validation_checks = {"all", "ES01", "EX01", "PR01", "RT01", "SA01"}
# The fields of named tuples, whose docstrings Python writes.
numpydoc_validation_exclude = {r"\.diagnosis\.(Layer|Gradient)\."}
numpydoc_xref_param_type = True
numpydoc_xref_aliases = {
    "array": ":doc:`array </contract>`",  # of any library
    "sequence": "collections.abc.Sequence",
    "bool": "bool",
}
numpydoc_xref_ignore = {
    *("arrays", "optional", "default", "of", "or", "such", "callable"),
    *("module", "namespace", "mapping", "Any", "to", "FIR", "MovingWindow"),
    # adding-a-loss.md describes them
    *("Reading", "Labels", "Target", "Trains", "Axis"),
    *("Recording", "Runs"),  # `record` and `compare_runs` describe them
    "Figure",  # of matplotlib
}

# Where the network does not reach them, the names that are needed are beside this file.
intersphinx_mapping = {
    name: (url, (None, str(HERE / "inventories" / f"{name}.txt")))
    for name, url in {
        "python": "https://docs.python.org/3/",
        "numpy": "https://numpy.org/doc/stable/",
        "torch": "https://docs.pytorch.org/docs/stable/",
    }.items()
}
intersphinx_timeout = 5

sphinx_gallery_conf = {
    "examples_dirs": ["gallery", "notebooks"],
    "gallery_dirs": ["auto_gallery", "auto_notebooks"],
    "subsection_order": ["gallery/train", "gallery/recordings", "gallery/losses"],
    "ignore_pattern": r"(^|[/\\])(?!plot_)\w+\.py",  # programs that draw pictures of pages
    "image_srcset": ["2x"],
    "capture_repr": (),
    "remove_config_comments": True,
    "write_computation_times": False,
    "reference_url": {"spikeloss_xp": None},
    "junit": "gallery.xml",
}

html_theme = "pydata_sphinx_theme"
html_title = "spikeloss_xp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "show_nav_level": 0,  # folds the groups of names in the sidebar of the reference
    "search_as_you_type": True,
    "footer_start": ["about"],
    "footer_end": [],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {page: [] for page in ("index", "quickstart")}

copybutton_exclude = ".linenos, .gp, .go"  # neither prompts nor printed output

html_math_renderer = "mathml"  # browsers draw it, so that no script is needed
ogp_social_cards = {"enable": False}

LINKS = {  # of files that are read where they are, to the pages that the site makes of them
    r"\]\(((?:\.\./)*)gallery/README\.md\)": r"](\1auto_gallery/index.rst)",
    r"\]\(((?:\.\./)*)(gallery|notebooks)/([\w/]+)\.py\)": r"](\1auto_\2/\3.rst)",
    r"\]\(((?:\.\./)*)\.\./CHANGELOG\.md\)": r"](\1changelog.md)",
    r"\]\(((?:\.\./)*)\.\./CONTRIBUTING\.md(#[\w-]+)?\)": r"](\1contributing.md\2)",
}


def to_pages(app, name, source):
    """Link to pages of the site what the files link to."""
    for link, page in LINKS.items():
        source[0] = re.sub(link, page, source[0])


def signature_of_class(app, what, name, kind, options, signature, returned):
    """Show the options of a class, which its base takes as any arguments."""
    if what == "class" and "*args" in (signature or ""):
        return stringify_signature(
            inspect.signature(kind), show_annotation=False
        ), returned
    return None


TOGGLE = re.compile(
    r"(?<=>)((?:(?!</a>).)*)(</a><details[^>]*><summary)>", re.DOTALL
)


def accessible(app, page, template, context, doctree):
    """Mend what the theme and docutils write, and what screen readers stumble over."""
    if "body" in context:  # browsers no longer know this role
        context["body"] = context["body"].replace(
            'role="doc-biblioentry"', 'role="listitem"'
        )
    sidebar = context.get("generate_toctree_html")

    def label(found):
        name = re.sub("<.*?>", "", found[1]).strip()
        return f'{found[1]}{found[2]} aria-label="Pages of {name}">'

    if sidebar is not None:  # its chevrons have no name
        context["generate_toctree_html"] = lambda *args, **options: TOGGLE.sub(
            label, str(sidebar(*args, **options))
        )


def number_citations(app, doctree):
    """Show a citation as ``[1]``, because numpydoc does so only on pages in reST."""
    for node in doctree.findall(addnodes.pending_xref):
        if node["refdomain"] == "citation":
            number = re.sub(r"\[R[0-9a-f]{12}-", "[", node.astext())
            node[:] = [nodes.inline("", number)]


BAR = re.compile(r'<mo(?: stretchy="false")?>&#x0007C;</mo>')
FUNCTION = re.compile(r"<m[io]>(log|max|mean|min|sign)</m[io]>")


def mathml(node, display):
    """Return a formula as MathML, with thin spaces around functions, and none around bars."""
    found = convert(node.astext(), display=display)
    found = FUNCTION.sub(r'<mo lspace="0.17em" rspace="0.17em">\1</mo>', found)
    return BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">|</mo>', found)


def inline_math(writer, node):
    """Write a formula in a line of text."""
    writer.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def block_math(writer, node):
    """Write a formula of its own, which a narrow screen scrolls."""
    formula = mathml(node, "block")
    writer.body.append(f'<div class="formula" tabindex="0">{formula}</div>')
    raise nodes.SkipNode


def setup(app):
    """Add the functions above."""
    app.connect("source-read", to_pages)
    app.connect("doctree-read", number_citations)
    app.connect("html-page-context", accessible, priority=900)  # after the theme
    app.connect("autodoc-process-signature", signature_of_class)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))


warnings.filterwarnings("error", module="spikeloss_xp")

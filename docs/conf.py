"""Build the site: ``sphinx-build -W docs build/site``, with the library installed."""

import html
import importlib
import inspect
import re
import textwrap
import warnings
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode
from sphinx_gallery.sorting import FunctionSortKey

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
]
exclude_patterns = ["build", "inventories", "gallery"]
templates_path = ["_templates"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc's sections have them
autosummary_generate = True
numpydoc_show_class_members = False  # the template lists them
numpydoc_validation_checks = {"all", "ES01", "EX01", "PR01", "RT01", "SA01"}  # but these
numpydoc_xref_param_type = True
numpydoc_xref_aliases = {
    "array": ":doc:`array </contract>`",  # of any library
    "sequence": "collections.abc.Sequence",
    "bool": "bool",
}
numpydoc_xref_ignore = {
    *("arrays", "optional", "default", "of", "or", "such", "callable"),
    *("module", "namespace", "mapping", "Any", "to", "FIR", "MovingWindow"),
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

GALLERY = (  # in the order that they are best read in
    "plot_what_a_loss_sees.py",
    "plot_spike_pattern.py",
    "plot_digits.py",
    "plot_decoded_signal.py",
    "plot_pull_of_a_spike.py",
    "plot_early_answers.py",
    "plot_recorded_neurons.py",
    "plot_distances.py",
    "plot_model_against_recording.py",
    "plot_event_based_training.py",
    "plot_large_recording.py",
    "plot_own_loss.py",
)
sphinx_gallery_conf = {
    "within_subsection_order": FunctionSortKey(GALLERY.index, "GALLERY"),
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"(pictures|glance)\.py",
    "notebook_extensions": set(),  # a notebook would lack the hidden blocks, and fail
    "matplotlib_animations": False,
    "image_srcset": ["2x"],
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "capture_repr": (),
    "junit": "gallery.xml",
    "write_computation_times": False,
    "reference_url": {"spikeloss_xp": None},
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
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {page: [] for page in ("index", "quickstart", "changelog")}

copybutton_exclude = ".linenos, .gp, .go"  # copies neither prompts nor printed output

html_math_renderer = "mathml"  # which browsers draw themselves: nothing is fetched from elsewhere

LINKS = {  # of files that are read where they are, to the pages that the site makes of them
    "](gallery/README.md)": "](auto_gallery/index.rst)",
    "](gallery/plot_distances.py)": "](auto_gallery/plot_distances.rst)",
    "](gallery/plot_pull_of_a_spike.py)": "](auto_gallery/plot_pull_of_a_spike.rst)",
    "](../gallery/plot_decoded_signal.py)": "](../auto_gallery/plot_decoded_signal.rst)",
    "](../gallery/plot_digits.py)": "](../auto_gallery/plot_digits.rst)",
    **{
        f"](../gallery/plot_{name}.py)": f"](../auto_gallery/plot_{name}.rst)"
        for name in ("event_based_training", "model_against_recording")
    },
    "](../CHANGELOG.md)": "](changelog.md)",
}


def to_pages(app, name, source):
    """Link to pages of the site what the files link to."""
    for link, page in LINKS.items():
        source[0] = source[0].replace(link, page)


def formula(node, *, as_block):
    """Return MathML, or fail with the formula that cannot be written in it."""
    try:
        mathml = tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        raise ExtensionError(f"{error}: {node.astext()}") from None
    # Browsers leave no room after a function without parentheses.
    return re.sub(
        r"(<mo>&ApplyFunction;</mo>)(?!\s*<mo[^>]*>\()", r'\1<mspace width="0.17em"/>', mathml
    )


def inline_math(writer, node):
    """Write a formula in a line of text."""
    writer.body.append(formula(node, as_block=False))
    raise nodes.SkipNode


def block_math(writer, node):
    """Write a formula of its own, which a narrow screen scrolls."""
    shown = formula(node, as_block=True)
    writer.body.append(f'<div class="formula" tabindex="0">{shown}</div>')
    raise nodes.SkipNode


def first_sentences(text, length):
    """Return the first sentences of a text that fit, or its beginning if the first one does not."""
    short = ""
    for sentence in re.split(r"(?<=[.:]) ", text):
        if len(short) + len(sentence) >= length:
            break
        short = f"{short} {sentence}".strip()
    return short if len(short) >= 40 else textwrap.shorten(text, length, placeholder=" ...")


def describe_page(app, page, template, context, doctree):
    """Describe a page to search engines by its first paragraph, unless it does so itself."""
    if doctree is None or 'name="description"' in context.get("metatags", ""):
        return
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) >= 40 and next(paragraph.findall(nodes.math), None) is None:
            short = first_sentences(text, 200)
            tag = f'<meta name="description" content="{html.escape(short)}" />'
            context["metatags"] = f"{context.get('metatags', '')}\n{tag}"
            return


def every_public_name(app, env):
    """Fail if a public name is not in the reference."""
    described = env.get_domain("py").objects
    seen = set()
    modules = ("", ".backends", ".backends.torch", ".testing", ".losses")
    for module in (*modules, ".slayer.loss", ".slayer.classifier"):
        module = importlib.import_module(f"spikeloss_xp{module}")
        for name in module.__all__:
            found = getattr(module, name)
            if not inspect.ismodule(found) and id(found) not in seen:
                seen.add(id(found))
                if f"{module.__name__}.{name}" not in described:
                    raise ExtensionError(f"docs/reference.md lacks {module.__name__}.{name}")


class LinkPublicNames(SphinxPostTransform):
    """Link inline code to the reference if it is a public name or a call of one.

    The first mention in each section is linked: `SpikeMax`, `sx.SpikeMax` or `sx.SpikeMax(20)`, a
    member as `SpikeMax.memory`, one of any loss as `loss.memory`, and those of `BARE_MEMBERS`.
    """

    default_priority = 5  # before references are resolved
    INLINE = (nodes.literal, nodes.title_reference)  # the second in docstrings
    NOT_IN = (nodes.title, nodes.reference, addnodes.pending_xref, addnodes.desc_signature)
    NAME = re.compile(r"(?:(?:sx|spikeloss_xp)\.)?([\w.]+)(?:\(.*\))?", re.DOTALL)
    BARE_MEMBERS = ("sum_and_weight", "sum_weight_and_pullback", "events_and_entries")
    ADAPTER_PAGE = "adding-a-backend"  # where a method has the name of a public function

    def run(self, **options):
        """Replace the code by links."""
        names, linked = self.names(), set()
        for code in list(self.document.findall(lambda node: isinstance(node, self.INLINE))):
            match, parents = self.NAME.fullmatch(code.astext()), list(self.parents(code))
            full, target = names.get(match and match[1], (None, None))
            if full is None or target.docname == self.env.docname:
                continue
            section = next((node for node in parents if isinstance(node, nodes.section)), None)
            within = any(isinstance(parent, self.NOT_IN) for parent in parents)
            if not within and (section, full) not in linked:
                linked.add((section, full))
                place = self.app.builder, self.env.docname, target.docname, target.node_id
                shown = nodes.literal(code.rawsource, code.astext(), classes=["xref", "py"])
                code.replace_self(make_refnode(*place, shown, full))

    def names(self):
        """Return what may be written for each public name, with its full name and its target."""
        found = {}
        objects = self.env.get_domain("py").objects
        for full, target in sorted(objects.items(), key=lambda item: item[0].count(".")):
            if target.aliased or not full.startswith("spikeloss_xp."):
                continue
            parts = full.split(".")[1:]
            member = target.objtype not in ("class", "function")
            for k in range(len(parts) - member):
                found.setdefault(".".join(parts[k:]), (full, target))
            owner = parts[-2] if member else None
            if owner == "Loss":
                found[f"loss.{parts[-1]}"] = full, target
            if parts[-1] in self.BARE_MEMBERS and owner in ("Loss", "SparsityEnforcer"):
                found[parts[-1]] = full, target
            if owner == "ArrayAPIAdapter" and self.env.docname == self.ADAPTER_PAGE:
                found[parts[-1]] = full, target
        return found

    @staticmethod
    def parents(node):
        """Yield the nodes around a node, the nearest first."""
        while (node := node.parent) is not None:
            yield node


def setup(app):
    """Add all of that."""
    app.connect("source-read", to_pages)
    app.connect("env-check-consistency", every_public_name)
    app.add_post_transform(LinkPublicNames)
    app.connect("html-page-context", describe_page)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))


warnings.filterwarnings("error", module="spikeloss_xp")

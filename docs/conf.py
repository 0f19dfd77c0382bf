"""Build the site: ``sphinx-build -W docs build/site``, with the library installed."""

import html
import importlib
import inspect
import itertools
import re
import sys
import textwrap
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.inspect import stringify_signature
from sphinx.util.logging import getLogger
from sphinx.util.nodes import make_refnode
from sphinx.util.osutil import relative_uri
from sphinx_gallery.notebook import jupyter_notebook, save_notebook
from sphinx_gallery.py_source_parser import split_code_and_text_blocks
from sphinx_gallery.sorting import FunctionSortKey

import spikeloss_xp

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import thumbnails

ET.register_namespace("", "http://www.w3.org/1998/Math/MathML")

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

GALLERY = {  # by purpose, in the order that they are best read in
    "Train a network": (
        "plot_digits.py",
        "plot_does_not_learn.py",
        "plot_spike_pattern.py",
        "plot_decoded_signal.py",
        "plot_early_answers.py",
        "plot_event_based_training.py",
    ),
    "Model a recording": (
        "plot_models_of_recordings.py",
        "plot_model_against_recording.py",
    ),
    "Compare spike trains": (
        "plot_recorded_neurons.py",
        "plot_distances.py",
        "plot_large_recording.py",
    ),
    "Understand a loss, or write one": (
        "plot_what_a_loss_sees.py",
        "plot_pull_of_a_spike.py",
        "plot_own_loss.py",
    ),
}
NOTEBOOKS = (
    "plot_train_in_pytorch.py",
    "plot_train_in_jax.py",
    "plot_recording_to_distances.py",
)
EXAMPLES = (*itertools.chain(*GALLERY.values()), *NOTEBOOKS)
sphinx_gallery_conf = {
    "within_subsection_order": FunctionSortKey(EXAMPLES.index, "GALLERY"),
    "image_scrapers": ["thumbnails.scrape"],
    "examples_dirs": ["gallery", "notebooks"],
    "gallery_dirs": ["auto_gallery", "auto_notebooks"],
    "filename_pattern": r"plot_",
    "ignore_pattern": r"(^|[/\\])(?!plot_)\w+\.py",  # modules and programs for pictures
    "notebook_extensions": set(),  # one of the gallery would lack the hidden blocks, and fail
    "matplotlib_animations": False,
    "image_srcset": ["2x"],
    "thumbnail_size": (840, 480),
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

html_math_renderer = "mathml"  # browsers draw it themselves, so nothing is fetched

LINKS = {  # of files that are read where they are, to the pages that the site makes of them
    r"\]\(((?:\.\./)*)gallery/README\.md\)": r"](\1auto_gallery/index.rst)",
    r"\]\(((?:\.\./)*)(gallery|notebooks)/(plot_\w+)\.py\)": r"](\1auto_\2/\3.rst)",
    r"\]\(((?:\.\./)*)\.\./CHANGELOG\.md\)": r"](\1changelog.md)",
    r"\]\(((?:\.\./)*)\.\./CONTRIBUTING\.md(#[\w-]+)?\)": r"](\1contributing.md\2)",
}


def to_pages(app, name, source):
    """Link to pages of the site what the files link to."""
    for link, page in LINKS.items():
        source[0] = re.sub(link, page, source[0])


CELL = re.compile(r"^(?=\.\. GENERATED FROM PYTHON SOURCE LINES)", re.MULTILINE)
CODE = re.compile(r"^\.\. code-block:: Python\n(?:(?: {4}.*)?\n)*", re.MULTILINE)
PICTURE = re.compile(r"^\.\. image-sg:: .*\n(?: {3}:.*\n)*", re.MULTILINE)
END = re.compile(
    r"^\.\. (?:rst-class:: sphx-glr-timing|_sphx_glr_download_)", re.MULTILINE
)
NOTE = re.compile(
    r"^\.\. only:: html\n\n {4}\.\. note::\n(?:(?: {8}.*)?\n)*", re.MULTILINE
)


def pictures_first(app, page, source):
    """Show the pictures of an example before the code that draws, which is folded.

    The picture of the gallery's index comes first on the page, in place of a note on downloads.
    """
    if page.startswith("auto_notebooks/plot_"):
        source[0] = NOTE.sub("", source[0])
    if not page.startswith("auto_gallery/plot_"):
        return
    number = thumbnails.main_number(HERE / "gallery" / f"{Path(page).name}.py")
    end = END.search(source[0]).start()
    head, *cells = CELL.split(NOTE.sub("", source[0][:end]))
    pictures = [picture[0] for cell in cells for picture in PICTURE.finditer(cell)]
    main = pictures[number - 1] if pictures else ""
    for place, cell in enumerate(cells):
        code = CODE.search(cell)
        if code and (PICTURE.search(cell) or "= figure(" in code[0]):
            shown, title = cell.replace(code[0], ""), "Code of the picture"
            if number == 1 and main and main in shown:  # rather than twice in a row
                shown, title = shown.replace(main, ""), "Code of the first picture"
            folded = textwrap.indent(code[0], "   ")
            cells[place] = f"{shown}\n.. dropdown:: {title}\n\n{folded}\n"
    source[0] = "".join([head, main, "\n", *cells, source[0][end:]])


OPEN, CLOSE = (
    f".. raw:: html\n\n    {tag}\n\n"
    for tag in ('<div class="sphx-glr-thumbnails">', "</div>")
)
CARD = re.compile(
    r'^\.\. raw:: html\n\n    <div class="sphx-glr-thumbcontainer"'
    r"(?:.|\n)*?:doc:`/auto_gallery/(\w+)`",
    re.MULTILINE,
)


def group_gallery(app, page, source):
    """Give each group of examples a heading in the gallery's index."""
    titles = {names[0]: title for title, names in GALLERY.items()}

    def with_heading(card):
        title = titles.get(f"{card[1]}.py")
        heading = f"{CLOSE}{title}\n{'-' * len(title)}\n\n{OPEN}" if title else ""
        return heading + card[0]

    if page == "auto_gallery/index":
        source[0] = CARD.sub(with_heading, source[0])


LOGGER = getLogger(__name__)
CODE_BLOCKS = (nodes.literal_block, nodes.doctest_block)
WIDTH = 85  # docs/ruff.toml wraps code there


def narrow_code(app, doctree):
    """Warn of lines of code that are too long for a screen of 1280 pixels."""
    for block in doctree.findall(lambda node: isinstance(node, CODE_BLOCKS)):
        for number, line in enumerate(block.astext().splitlines(), start=1):
            if len(line) > WIDTH:
                place = app.env.docname, (block.line or 0) + number
                text = "%d characters of code, more than %d: %s"
                LOGGER.warning(text, len(line), WIDTH, line.strip(), location=place)


class NarrowPictures(SphinxPostTransform):
    """Show a picture to a phone in its narrow form, ``NAME-narrow.png``, if there is one."""

    default_priority = 400
    formats = ("html",)

    def run(self, **options):
        """Put a choice around the pictures."""
        folder = relative_uri(
            self.app.builder.get_target_uri(self.env.docname), "_images"
        )
        for image in list(self.document.findall(nodes.image)):
            narrow = image["uri"].removesuffix(".png") + "-narrow.png"
            if image["uri"].endswith(".png") and (HERE / narrow).exists():
                name = self.env.images.add_file(self.env.docname, narrow)
                self.app.builder.images[narrow] = name
                source = (
                    f'<source media="(max-width: 600px)" srcset="{folder}/{name}">'
                )
                around = "<picture>" + source, "</picture>"
                before, after = (
                    nodes.raw("", text, format="html") for text in around
                )
                image.replace_self([before, image.deepcopy(), after])


def signature_of_class(app, what, name, kind, options, signature, returned):
    """Show the options of a class, which its base takes as any arguments.

    The page of a loss shows them once, with the arguments of the call.
    """
    if what == "class" and app.env.docname.startswith("losses/"):
        return "", returned
    if what == "class" and "*args" in (signature or ""):
        shown = stringify_signature(inspect.signature(kind), show_annotation=False)
        return "" if "*args" in shown else shown, returned
    return None


FORMULA = re.compile(
    r"^\.\. math::.*\n(?:(?: +.*)?\n)*(?:(?:where|:math:)(?:.|\n)*?\.(?:\s+|$))?",
    re.MULTILINE,
)


def formula_once(app, what, name, kind, options, lines):
    """Remove the formula and its symbols from a docstring whose page already shows them."""
    page = app.env.docname
    if what == "class" and page.startswith("losses/") and page != "losses/times":
        lines[:] = FORMULA.sub("", "\n".join(lines), count=1).split("\n")


ROWS = ("math", "mrow", "mstyle", "msqrt", "mtd")  # MathML with its parts in a row
HATS = tuple("\u02c6\u02c9\u02dc")
APPLY = "\u2061"  # the invisible operator between a function and its argument
APART = {  # neighbours with a thin space between them
    *(
        (kind, "function")
        for kind in ("operand", "fraction", "close", "group", "function")
    ),
    *(("function", kind) for kind in ("operand", "fraction", "bar")),
    ("fraction", "fraction"),
}


def local(node):
    """Return the name of an element of MathML."""
    return node.tag.rpartition("}")[2]


def kind_of(node):
    """Return what an element is for the space around it."""
    name = node
    while local(name) in ("munder", "msub", "msup"):
        name = name[0]
    text = (name.text or "").strip()
    if local(name) in ("mi", "mo") and len(text) > 1 and text.isalpha():
        if local(name) == "mo":  # max and min, which browsers take for relations
            name.attrib |= {"lspace": "0", "rspace": "0"}
        return "function"
    if (
        local(name) == "mrow"
        and len(name)
        and (name[0].text or "").strip() in tuple("([{")
    ):
        return "group"
    symbols = {**dict.fromkeys("([{", "open"), **dict.fromkeys(")]}", "close")}
    others = {
        "mo": symbols.get(text, "operator"),
        "mspace": "space",
        "mfrac": "fraction",
    }
    return others.get(local(name), "operand")


def space_row(row):
    """Give a row of MathML the spaces of TeX, some of which browsers add or leave out."""
    before, in_bars = "", False
    for node in list(row):
        symbol, kind = (node.text or "").strip(), kind_of(node)
        if symbol == APPLY:
            continue
        if symbol == "|":
            kind = "close" if in_bars else "bar"
            in_bars = not in_bars
        if symbol and symbol in "|{}/":
            form = {"close": "postfix", "operator": "infix"}.get(kind, "prefix")
            node.attrib |= {"form": form, "lspace": "0", "rspace": "0"}
        if (before, kind) in APART:
            row.insert(list(row).index(node), ET.Element("mspace", width="0.1667em"))
        before = kind


def formula(node, *, as_block):
    """Return MathML, or fail with the formula that cannot be written in it."""
    try:
        mathml = tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        raise ExtensionError(f"{error}: {node.astext()}") from None
    root = ET.fromstring(mathml.replace("&ApplyFunction;", APPLY))
    for node in list(root.iter()):
        if local(node) in ("munderover", "msubsup") and node[2].text in HATS:
            name, index, hat = node  # a symbol with a hat and an index
            node.tag, node[:] = "msub", [ET.Element("mover", accent="true"), index]
            node[0][:] = [name, hat]
        if local(node) in ROWS:
            space_row(node)
    return ET.tostring(root, encoding="unicode")


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
    return (
        short
        if len(short) >= 40
        else textwrap.shorten(text, length, placeholder=" ...")
    )


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


TOGGLE = re.compile(
    r"(?<=>)((?:(?!</a>).)*)(</a><details[^>]*><summary)>", re.DOTALL
)


def name_toggles(app, page, template, context, doctree):
    """Name each chevron of the sidebar, for screen readers, by the page whose pages it shows."""
    generate = context.get("generate_toctree_html")

    def label(found):
        name = html.escape(html.unescape(re.sub("<.*?>", "", found[1])).strip())
        return f'{found[1]}{found[2]} aria-label="Pages of {name}">'

    if generate is not None:
        context["generate_toctree_html"] = lambda *args, **options: TOGGLE.sub(
            label, str(generate(*args, **options))
        )


TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
WORD = re.compile(r'(?<=<span class="pre">)[^<]+')


def mend_body(app, page, template, context, doctree):
    """Let code in tables break before a name, and not within one."""

    def with_breaks(word):
        return re.sub(r"([(\[,]|(?<=\w{4})\.)(?=[A-Za-z_])", r"\1<wbr>", word[0])

    if "body" in context:
        # Browsers no longer know the role that docutils gives to a citation in a list.
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = TABLE.sub(
            lambda table: WORD.sub(with_breaks, table[0]), body
        )


def every_public_name(app, env):
    """Fail if a public name is on no page."""
    described = env.get_domain("py").objects
    seen = set()
    modules = ("", ".backends", ".distances", ".losses")
    of_parts = (".testing", ".times", ".torch")
    of_lava = (".slayer.loss", ".slayer.classifier", ".slayer.published")
    for module in (*modules, *of_parts, *of_lava):
        module = importlib.import_module(f"spikeloss_xp{module}")
        for name in module.__all__:
            found = getattr(module, name)
            if not inspect.ismodule(found) and id(found) not in seen:
                seen.add(id(found))
                if f"{module.__name__}.{name}" not in described:
                    raise ExtensionError(
                        f"no page describes {module.__name__}.{name}"
                    )


def number_citations(app, doctree):
    """Show the number of a citation, as ``[1]``, in place of numpydoc's label.

    numpydoc does so itself, but not in a docstring on a page in Markdown: docutils does not note on
    such a page which references a citation has.
    """
    for node in doctree.findall(addnodes.pending_xref):
        if node["refdomain"] == "citation":
            node[:] = [
                nodes.inline("", re.sub(r"\[R[0-9a-f]{12}-", "[", node.astext()))
            ]


class LinkPublicNames(SphinxPostTransform):
    """Link inline code to the reference if it is a public name or a call of one.

    The first mention in each section, and in each cell of a table, is linked: `SpikeMax`,
    `sx.SpikeMax` or `sx.SpikeMax(20)`, a member as `SpikeMax.memory`, one of any loss as
    `loss.memory`, and the names in `BARE_MEMBERS`.
    """

    default_priority = 5  # before references are resolved
    INLINE = (nodes.literal, nodes.title_reference)  # the second in docstrings
    ONCE_IN = (nodes.section, nodes.entry)
    NOT_IN = (
        nodes.title,
        nodes.reference,
        addnodes.pending_xref,
        addnodes.desc_signature,
    )
    NAME = re.compile(r"(?:(?:sx|spikeloss_xp)\.)?([\w.]+)(?:\(.*)?", re.DOTALL)
    BARE_MEMBERS = (
        "sum_and_weight",
        "sum_weight_and_pullback",
        "events_and_entries",
    )
    # Methods on this page have the names of functions.
    ADAPTER_PAGE = "contributing/adding-a-backend"

    def run(self, **options):
        """Replace the code by links."""
        names, linked = self.names(), set()
        for code in list(
            self.document.findall(lambda node: isinstance(node, self.INLINE))
        ):
            match, parents = (
                self.NAME.fullmatch(code.astext()),
                list(self.parents(code)),
            )
            full, target = names.get(match and match[1], (None, None))
            if full is None or target.docname == self.env.docname:
                continue
            section = next(
                (node for node in parents if isinstance(node, self.ONCE_IN)), None
            )
            within = any(isinstance(parent, self.NOT_IN) for parent in parents)
            if not within and (section, full) not in linked:
                linked.add((section, full))
                place = (
                    self.app.builder,
                    self.env.docname,
                    target.docname,
                    target.node_id,
                )
                shown = nodes.literal(
                    code.rawsource, code.astext(), classes=["xref", "py"]
                )
                code.replace_self(make_refnode(*place, shown, full))

    def names(self):
        """Return what may be written for each public name, with its full name and its target."""
        found = {}
        objects = self.env.get_domain("py").objects
        for full, target in sorted(
            objects.items(), key=lambda item: item[0].count(".")
        ):
            if target.aliased or not full.startswith("spikeloss_xp."):
                continue
            parts = full.split(".")[1:]
            member = target.objtype not in ("class", "function")
            for k in range(len(parts) - member):
                found.setdefault(".".join(parts[k:]), (full, target))
            owner = parts[-2] if member else None
            if owner in ("Loss", "ClassLoss"):
                found.setdefault(f"loss.{parts[-1]}", (full, target))
            if parts[-1] in self.BARE_MEMBERS and owner in (
                "ClassLoss",
                "SparsityEnforcer",
            ):
                found[parts[-1]] = full, target
            if owner == "ArrayAPIAdapter" and self.env.docname == self.ADAPTER_PAGE:
                found[parts[-1]] = full, target
        return found

    @staticmethod
    def parents(node):
        """Yield the nodes around a node, the nearest first."""
        while (node := node.parent) is not None:
            yield node


def write_notebooks(app):
    """Write the notebooks, which have no hidden blocks, beside their pages."""
    for name in NOTEBOOKS:
        _, blocks = split_code_and_text_blocks(str(HERE / "notebooks" / name))
        notebook = jupyter_notebook(
            blocks, app.config.sphinx_gallery_conf, str(HERE / "notebooks")
        )
        save_notebook(
            notebook, HERE / "auto_notebooks" / Path(name).with_suffix(".ipynb")
        )


def setup(app):
    """Add all of that."""
    for function in (write_notebooks, thumbnails.replace):
        app.connect("builder-inited", function, priority=900)  # after the gallery
    app.connect("source-read", to_pages)
    app.connect("source-read", pictures_first)
    app.connect("source-read", group_gallery)
    app.connect("autodoc-process-signature", signature_of_class)
    # before numpydoc
    app.connect("autodoc-process-docstring", formula_once, priority=100)
    app.connect("doctree-read", narrow_code)
    app.connect("doctree-read", number_citations)
    app.connect("env-check-consistency", every_public_name)
    app.add_post_transform(LinkPublicNames)
    app.add_post_transform(NarrowPictures)
    app.connect("html-page-context", describe_page)
    app.connect("html-page-context", mend_body)
    app.connect("html-page-context", name_toggles, priority=900)  # after the theme
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))


warnings.filterwarnings("error", module="spikeloss_xp")

"""The signatures that the pages of losses show: ``python tools/write_pages.py`` writes them."""

import inspect
import operator
import re
import textwrap
from collections.abc import Callable
from typing import Any

import spikeloss_xp as sx
from _support.pages import DOCS

PAGES = sorted((DOCS / "losses").glob("*.md"))
WIDTH = 85
SECTION = re.compile(r"(\n## Signature\n\n```py\n).*?^```$", re.M | re.S)


def line(name: str, function: Callable[..., Any], result: str = "") -> str:
    """Return a call with all arguments and their defaults, as code."""
    parts, keywords = [], False
    for parameter in inspect.signature(function).parameters.values():
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name == "self" or variable:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            parts.append("*")
            keywords = True
        default = repr(parameter.default).replace("'", '"')
        given = parameter.default is not parameter.empty
        parts.append(f"{parameter.name}={default}" if given else parameter.name)
    call = f"{result}{name}({', '.join(parts)})"
    return "\n".join(textwrap.wrap(call, WIDTH, subsequent_indent="    "))


def signature(page: str) -> str:
    """Return the calls of the losses that a page describes, and what their calls accept."""
    names = re.findall(r"^\.\. autoclass:: spikeloss_xp\.([\w.]+)$", page, re.M)
    losses = [operator.attrgetter(name)(sx) for name in names]
    made = [line(f"sx.{name}", loss, "loss = ") for name, loss in zip(names, losses, strict=True)]
    return "\n".join([*made, line("loss", losses[0].__call__, "value = ")]) + "\n"


def written(page: str) -> str:
    """Return the text of a page with its signatures replaced."""
    text, number = SECTION.subn(lambda found: f"{found[1]}{signature(page)}```", page)
    if number != 1:
        raise ValueError("a page of a loss has one section Signature")
    return text

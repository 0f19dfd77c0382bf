"""Copy the drawing functions into the examples that use them: ``python docs/gallery/copies.py``."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
BLOCK = re.compile(
    r"(# sphinx_gallery_start_ignore\n# Copies, so that this script runs alone\.\n).*?"
    r"(# sphinx_gallery_end_ignore\n)",
    re.DOTALL,
)


def definitions():
    """Return the source of each constant and function of pictures.py, and the names it defines."""
    text = (HERE / "pictures.py").read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for node in ast.parse(text).body:
        source = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef):
            found.append((f"\n\n\n{source}", {node.name}))
        elif isinstance(node, ast.Assign):
            targets = ast.walk(node.targets[0])
            found.append(
                (f"\n{source}", {x.id for x in targets if isinstance(x, ast.Name)})
            )
    return found


def names(source):
    """Return the names in a source text."""
    return {
        node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)
    }


def with_copies(text):
    """Return an example with copies of the functions and constants that it uses."""
    found, needed = definitions(), names(BLOCK.sub("", text))
    while (
        more := set().union(*(names(s) for s, own in found if own & needed)) - needed
    ):
        needed |= more
    copies = "".join(source for source, own in found if own & needed)
    return BLOCK.sub(lambda block: f"{block[1]}{copies}\n\n\n{block[2]}", text)


def main():
    """Write the copies."""
    for path in sorted(HERE.glob("plot_*.py")):
        text = path.read_text(encoding="utf-8")
        path.write_text(with_copies(text), encoding="utf-8")


if __name__ == "__main__":
    main()

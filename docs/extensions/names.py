"""Names in code font lead to their page in the reference, wherever they stand."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

from extensions import manuals
from extensions.reference import names

NAME = re.compile(r"(?:skact\.)?((?:[a-z_]+\.)?)(\w+)((?:\.\w+)*)(?:\(.*\))?", re.DOTALL)


def target(text):
    """Return the full name that a piece of code names, or None."""
    match = NAME.fullmatch(text)
    if match is None:
        return None
    room, name, rest = match.groups()
    for full in (f"skact.{room}{name}", f"skact.{name}"):
        if full in names():
            return full + rest
    # Below the top, classes may do without their room; functions have names that others have too.
    found = [full for full in names() if name[0].isupper() and full.endswith(f".{name}")]
    if found and not room:
        return found[0] + rest
    return None if room or rest else manuals.listed().get(name)


class LinkNames(SphinxTransform):
    """Wraps code that is a public name in a reference."""

    default_priority = 500

    def apply(self):
        """Go through the code of a page."""
        for node in list(self.document.findall(nodes.literal)):
            full = target(node.astext())
            if not full or isinstance(node.parent, (nodes.title, nodes.reference)):
                continue
            if isinstance(node.parent, addnodes.pending_xref) or self.env.docname.endswith(full):
                continue
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=full, refdoc=self.env.docname
            )
            node.replace_self(link)
            link += node


def under_another_name(app, env, node, contnode):
    """Find a name spelled with its room, as ``skact.tokens.TokenArray``, or a method alone."""
    if node.get("refdomain") != "py":
        return None
    # The table of methods stands above the class, so that its sentences name methods alone.
    page = node["refdoc"].removeprefix("reference/")
    method = f"{page}.{node['reftarget']}"
    full = method if method in env.get_domain("py").objects else target(node["reftarget"])
    if not full or full == node["reftarget"]:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)


def setup(app):
    """Register the transform and the hook."""
    app.add_transform(LinkNames)
    app.connect("missing-reference", under_another_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

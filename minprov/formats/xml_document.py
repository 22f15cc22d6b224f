"""The platform's XML: bytes in, a root `Node` that is walked by name out.

One place decides what a document may be: bounded in size and in markup, UTF-8 with or without a byte order mark, no DTD
(so no entities), parsed by defusedxml. One place decides what a lookup means: by namespace and never by prefix; a
missing, repeated, or unexpectedly nested element is an error that names it. What the elements mean is the business of
`ovf` and `wire`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, XMLParser

from minprov.errors import ProvisioningError, Reason, excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

# Azure's largest ovf-env, with 87 KiB of customData as base64 and dozens of keys, stays far below each of these.
MAX_BYTES = 512 * 1024
MAX_MARKUP = 10_000  # tags and attributes
# expat copies the namespace's URI into every name, so a long URI used often makes gigabytes of a small document.
LONG_NAMESPACE = rb"""xmlns(?::[^\s=:]*)?\s*=\s*(?:"[^"]{129}|'[^']{129})"""

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}  # XML Schema part 2 §3.2.2.1


def parse_document(data: bytes, namespace: str, *, malformed: Reason, invalid: Reason) -> Node:
    """Return the root element of a document whose elements are in `namespace`.

    Raises:
        ProvisioningError: `malformed` if it is no acceptable XML; later, from the node, `invalid`.
    """
    root: Element = feed(new_parser(), data, malformed)
    return Node(root, f"{{{namespace}}}" if namespace else "", invalid)


def new_parser(target: object = None) -> XMLParser:
    """Return a parser that hands events to `target`, or without one builds the tree."""
    # Naming the encoding overrides the document's declaration, which may name any of Python's codecs.
    return XMLParser(target=target, encoding="utf-8", forbid_dtd=True)


def feed(parser: XMLParser, data: bytes, malformed: Reason) -> Any:  # noqa: ANN401 - what the parser's target returns
    """Return what `parser` makes of the document."""
    if len(data) > MAX_BYTES or data.count(b"<") + data.count(b"=") > MAX_MARKUP or re.search(LONG_NAMESPACE, data):
        raise ProvisioningError(malformed, detail="it is larger or more intricate than the platform's documents are")
    if b"\0" in data:  # expat would take it for UTF-16; in UTF-8 it is no XML
        raise ProvisioningError(malformed, detail="it is not UTF-8")
    try:
        parser.feed(data)
        return parser.close()
    except ParseError as error:
        raise ProvisioningError(malformed, detail=error) from error
    except DefusedXmlException as error:
        raise ProvisioningError(malformed, detail="it has a DTD, which is refused") from error


class Node:
    """An element looked at through its namespace, that reports what is wrong in it under one `Reason`."""

    __slots__ = ("_element", "_invalid", "_namespace")

    def __init__(self, element: Element, namespace: str, invalid: Reason) -> None:
        self._element = element
        self._namespace = namespace
        self._invalid = invalid

    @property
    def name(self) -> str:
        """The element's name without its namespace."""
        return self._element.tag.rpartition("}")[2]

    def error(self, problem: str, **data: object) -> ProvisioningError:
        """Return the error that says what is wrong with this element."""
        return ProvisioningError(self._invalid, element=excerpt(self.name), detail=problem, **data)

    def children(self, *names: str) -> Iterator[Node]:
        """Yield the child elements that have one of `names`, in document order."""
        tags = [self._namespace + name for name in names]
        for element in self._element:
            if element.tag in tags:
                yield Node(element, self._namespace, self._invalid)

    def child(self, *names: str) -> Node | None:
        """Return the one child element that has one of `names`, or None."""
        found = None
        for node in self.children(*names):
            if found is not None:
                raise node.error("appears more than once")
            found = node
        return found

    def optional(self, *names: str) -> Node:
        """Return the one child element that has one of `names`, or an empty one: absent and empty mean the same."""
        return self.child(*names) or Node(self._element.makeelement(names[0], {}), self._namespace, self._invalid)

    def required(self, name: str) -> Node:
        """Return the one child element with this name, which must be there."""
        node = self.child(name)
        if node is None:
            raise ProvisioningError(self._invalid, element=name, detail=f"missing from {excerpt(self.name)}")
        return node

    def required_text(self, name: str) -> str:
        """Return the text of the one child element with this name, which must have some."""
        node = self.required(name)
        text = node.text()
        if text is None:
            raise node.error("must not be empty")
        return text

    def raw_text(self) -> str:
        """Return the character data exactly, which may be empty."""
        if len(self._element):
            raise self.error("must hold text only")
        return self._element.text or ""

    def text(self) -> str | None:
        """Return the character data without the white space around it, or None if there is no more."""
        return self.raw_text().strip() or None

    def boolean(self) -> bool | None:
        """Return the truth value, or None if the element is empty."""
        text = self.text()
        if text is None:
            return None
        try:
            return BOOLEANS[text.lower()]
        except KeyError:
            raise self.error("must be true or false", value=excerpt(text)) from None

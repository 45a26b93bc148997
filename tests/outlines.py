"""What a Markdown text is made of, as a reader of CommonMark and tables sees it."""

from markdown_it import MarkdownIt
from markdown_it.token import Token


def tokens_of(markdown: str) -> list[Token]:
    """The blocks of a text; `Token.children` are what stands inside one."""
    return MarkdownIt("commonmark").enable("table").parse(markdown)


def outline(markdown: str) -> list[tuple[str, int]]:
    """The blocks of a text, each cell of a table among them, then how much raw HTML (but for code spans) and
    how many links and pictures it has."""
    tokens = tokens_of(markdown)
    blocks = [(token.type + token.tag, 0) for token in tokens if token.type not in ("inline", "text")]
    children = [child for token in tokens for child in token.children or []]
    inner = [child.type for child in children if child.content not in ("<code>", "</code>")]
    return blocks + [(kind, inner.count(kind)) for kind in ("html_inline", "link_open", "image")]


def programs(markdown: str) -> list[str]:
    """The Python programs of a text."""
    return [
        token.content for token in tokens_of(markdown) if token.type == "fence" and token.info == "python"
    ]

"""The snippets of a document, to be tried as they are."""

import re

from tests.integration.command import PROJECT


def snippets(name: str, language: str) -> list[str]:
    """The fenced blocks of docs/how-to/NAME.md that are in a language."""
    text = (PROJECT / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

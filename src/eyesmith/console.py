"""Where people read along: a rich console that shows text as it is, whoever wrote it."""

from typing import Any

from rich.console import Console

from eyesmith.plain import plain


class PlainConsole(Console):
    """A console without markup, emoji codes and colours by guess; what a terminal would obey in a text is shown."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich's, each text in one line."""
        super().print(*(plain(one) if isinstance(one, str) else one for one in objects), **settings)

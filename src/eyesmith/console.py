"""Where people read along: a rich console that shows text as it is, whoever wrote it."""

from typing import Any

from rich.console import Console

from eyesmith.plain import plain


class PlainConsole(Console):
    """A console without markup, emoji codes and colours by guess; what a terminal would obey in a text is shown."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich's, each text in one line; of a table no line ends in blanks where no terminal shows it."""
        objects = tuple(plain(one) if isinstance(one, str) else one for one in objects)
        if self.is_terminal or all(isinstance(one, str) for one in objects):
            super().print(*objects, **settings)
            return
        with self.capture() as shown:
            super().print(*objects, **settings)
        self.file.write("\n".join(line.rstrip(" ") for line in shown.get().split("\n")))
        self.file.flush()

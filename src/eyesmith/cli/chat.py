"""`eyesmith chat`: ask a language model with an eye about a picture."""

import sys
from typing import Annotated

import tyro
from tyro.conf import Positional

from eyesmith.cli.dispatch import call
from eyesmith.cli.images import Device
from eyesmith.cli.output import AsJson, print_json
from eyesmith.errors import ConfigError
from eyesmith.hub.device import find_device
from eyesmith.plain import plain


def main(argv: list[str], prog: str) -> int:
    """Run the verb on its own arguments."""
    return call(chat, argv, prog=prog)


def chat(
    run: Annotated[Positional[str], tyro.conf.arg(metavar="RUN", help="The folder of a finished chat run.")],
    image: Annotated[Positional[str], tyro.conf.arg(metavar="IMAGE", help="A picture; - for none.")],
    questions: Annotated[
        Positional[tuple[str, ...]], tyro.conf.arg(metavar="QUESTION...", help="Asked in turn, in one dialogue.")
    ],
    /,
    *,
    max_new_tokens: int = 128,
    device: Device = None,
    as_json: AsJson = False,
) -> int:
    """Ask about a picture; the words are shown as they come.

    Args:
        max_new_tokens: Where an answer is cut off.
    """
    if not questions or not all(question.strip() for question in questions):
        raise ConfigError('expected a question after the picture: "What colour is the circle?"')
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens: expected 1 or more, got {max_new_tokens}")
    where = find_device(device)
    from eyesmith.images.decode import open_image

    picture = None if image == "-" else open_image(image)
    from eyesmith.multimodal.chat import ChatAssistant

    assistant = ChatAssistant(run, device=where)
    messages: list[dict[str, str]] = []
    said = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        show = None if as_json else _show
        answer = assistant.chat(picture, messages, max_new_tokens=max_new_tokens, say=show)
        if not as_json:
            _show("\n")
        messages.append({"role": "assistant", "content": answer})
        said.append({"question": question, "answer": answer})
    if as_json:
        shown = None if image == "-" else image
        print_json({"run": run, "image": shown, "eye": assistant.facts["eye_hash"], "said": said})
    return 0


def _show(words: str) -> None:
    sys.stdout.write(plain(words))
    sys.stdout.flush()

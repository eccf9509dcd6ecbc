"""The parts of the page that show pictures: the gallery of guesses, text search, the worst confusions."""

import base64

from eyesmith.report.content import Example, ExampleGroup, Hit, Picture, ReportData, Search
from eyesmith.report.markup import Markup, element, join
from eyesmith.report.words import count, percent, shorten, split_title

OUTCOMES = {
    "first": ("✓", "Right at the first guess"),
    "top5": ("≈", "Right name among the first five"),
    "missed": ("✗", "Missed"),
}


def image(picture: Picture, alt: str) -> Markup:
    """`<img>` that carries its bytes with it."""
    source = f"data:{picture.media_type};base64,{base64.b64encode(picture.data).decode('ascii')}"
    return element(
        "img", class_="pic", src=source, alt=shorten(alt), width=picture.width, height=picture.height, decoding="async"
    )


def gallery_section(data: ReportData) -> Markup | None:
    """Held-out pictures with the five best names, right and wrong in true proportion."""
    gallery = data.gallery
    if gallery is None or not gallery.groups:
        return None
    total = sum(group.total for group in gallery.groups)
    shown = sum(len(group.examples) for group in gallery.groups)
    return element(
        "section",
        element("h2", f"What it sees: {split_title(gallery.split).lower()}", id="gallery-title"),
        element(
            "p",
            f"{count(shown)} of {count(total)} pictures, none chosen by hand: the split is parted by outcome, each "
            "outcome gets its true share of the places, and fills them with every k-th picture in the order of their "
            f"keys. The five best of {count(gallery.num_classes)} names are listed with the model's probability; "
            "the true name is coloured.",
        ),
        [_example_group(group, total) for group in gallery.groups if group.total],
        id="gallery",
        aria_labelledby="gallery-title",
    )


def _example_group(group: ExampleGroup, total: int) -> Markup:
    mark, title = OUTCOMES[group.outcome]
    share = f"{count(group.total)} of {count(total)}, {percent(group.total / total)}; {len(group.examples)} shown"
    heading = element(
        "h3",
        element("span", mark, class_="mark", aria_hidden="true"),
        element("span", title),
        element("span", share, class_="soft"),
        class_=f"group {group.outcome}",
    )
    cards = element("ul", [_card(example) for example in group.examples], class_="cards") if group.examples else None
    return join(heading, cards)


def _card(example: Example) -> Markup:
    guesses = [
        element(
            "li",
            element("span", shorten(guess.name, 60)),
            element("span", percent(guess.probability)),
            class_="true" if guess.is_true else None,
            style=f"--p:{100 * min(max(guess.probability, 0.0), 1.0):.1f}%",
        )
        for guess in example.guesses
    ]
    truth = shorten(example.truth, 60)
    return element(
        "li",
        image(example.picture, f"{truth}, {example.style}" if example.style else truth),
        element(
            "div",
            element("p", truth, class_="truth"),
            element("p", shorten(example.style, 40), class_="style"),
            element("ol", guesses, class_="guesses"),
        ),
        class_="card",
    )


def search_section(data: ReportData) -> Markup | None:
    """Text queries with the pictures that lie nearest."""
    if not data.searches:
        return None
    unseen = f" that training never showed ({data.search_pool})" if data.search_pool else ""
    free = (
        "The queries are the same for every model; those that are a name from the data say so. Nothing here is counted "
        "as right or wrong: judge for yourself. "
    )
    return element(
        "section",
        element("h2", "Search by words", id="search-title"),
        element(
            "p",
            f"The pictures nearest to a text, best first, out of {count(data.search_pool_size)} pictures{unseen}. ",
            free if any(not search.is_class_name for search in data.searches) else None,
            "The small figure is the cosine similarity.",
        ),
        [_search(search) for search in data.searches],
        id="search",
        aria_labelledby="search-title",
    )


def _search(search: Search) -> Markup:
    kind = element("span", "a name from the data", class_="soft") if search.is_class_name else None
    return element(
        "div",
        element("h3", f"“{shorten(search.query)}”", kind),
        element("ol", [_hit(hit) for hit in search.hits], class_="hits"),
        class_="search",
    )


def _hit(hit: Hit) -> Markup:
    name = shorten(hit.name, 40)
    return element(
        "li",
        image(hit.picture, name),
        element("span", name, class_="name"),
        element("span", f"{hit.cosine:.2f}", class_="cosine"),
    )


def confusions_section(data: ReportData) -> Markup | None:
    """What was taken for what, the worst first."""
    if not data.confusions:
        return None
    pairs: list[Markup] = []
    for confusion in data.confusions:
        truth, guess = shorten(confusion.truth, 40), shorten(confusion.guess, 40)
        other = (
            image(confusion.guess_picture, f"for comparison: {guess}")
            if confusion.guess_picture is not None
            else element("span", "no picture", class_="empty")
        )
        times = f", {confusion.count} times" if confusion.count > 1 else ""
        pairs.append(
            element(
                "li",
                element(
                    "div",
                    image(confusion.picture, truth),
                    element("span", "→", aria_hidden="true"),
                    other,
                    class_="two",
                ),
                element(
                    "p",
                    element("strong", truth),
                    " taken for ",
                    element("strong", guess),
                    f"{times}: {percent(confusion.guess_probability)} against {percent(confusion.truth_probability)} "
                    "for the right name.",
                ),
                class_="pair",
            )
        )
    return element(
        "section",
        element("h2", "Worst confusions", id="confusions-title"),
        element(
            "p",
            f"The worst {count(len(data.confusions))} of {count(data.num_confusions)} different mistakes: the most "
            "frequent pairs first, then those where the model was most certain. Left the picture it got wrong, right a "
            "picture of what it took it for.",
        ),
        element("ul", pairs, class_="pairs"),
        id="confusions",
        aria_labelledby="confusions-title",
    )

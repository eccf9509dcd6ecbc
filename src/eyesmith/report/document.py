"""What every page of ours is: one self-contained HTML document in one style, which loads nothing."""

from importlib import resources

from eyesmith.report.markup import Child, Markup, element

# what a page may load: nothing but what it carries itself
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, *body: Child, policy: str = POLICY, style: str = "") -> str:
    """The complete document. title: of the window; policy: its Content-Security-Policy; style: rules after our own."""
    sheet = resources.files("eyesmith.report").joinpath("page.css").read_text(encoding="utf-8")
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="color-scheme", content="light dark"),
            element("title", f"{title} · eyesmith report"),
            element("style", Markup(sheet + style)),
        ),
        element("body", *body),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"

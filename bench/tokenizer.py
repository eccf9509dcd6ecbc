"""Tokenizing captions: ours against open_clip's SimpleTokenizer. Every pair brings captions that neither has seen."""

import torch

from bench.captions import captions
from bench.pairs import Row, speed
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.tokenizer import ClipTokenizer

BATCH = 2000
SEED = 1_000


def rows() -> list[Row]:
    """Fresh captions after two batches of warm-up, fresh web captions, and the first captions of a new process."""
    return [
        row("tokenizer_captions"),
        row("tokenizer_web", web=True),
        row("tokenizer_first_batch", forgets=True),
    ]


def row(name: str, *, web: bool = False, forgets: bool = False) -> Row:
    """Ids of new captions in every pair. web: a tenth as found on web pages; forgets: nothing is remembered before."""
    ensure_torchvision()
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    ours, theirs = ClipTokenizer.load(), SimpleTokenizer()
    at_first = dict(theirs.cache)

    def fresh(i: int) -> list[str]:
        if forgets:
            ours.forget()
            theirs.cache = dict(at_first)
        return captions(BATCH, SEED + i, web=web)

    if forgets:
        note = f"the first {BATCH} captions: both sides start with nothing remembered"
    else:
        what = ", a tenth with curly quotes, accents, entities or emoji" if web else ""
        known = f"{known_frac():.1%} of the words of a batch stood in one of the batches before"
        note = f"{BATCH} captions of 5 to 25 words{what}, new in every pair; {known}"
    return speed(
        name,
        fresh,
        ours,
        theirs,
        equal=torch.equal,
        count=BATCH,
        unit="texts/s",
        peer=f"open_clip {open_clip.__version__} SimpleTokenizer",
        note=note,
    )


def known_frac(*, num_warmups: int = 2, num_pairs: int = 9) -> float:
    """Share of the words (split at spaces, lower case) of the measured batches that an earlier batch had."""
    batches = [
        [w for c in captions(BATCH, SEED + i) for w in c.lower().split()] for i in range(num_warmups + num_pairs)
    ]
    seen = {word for batch in batches[:num_warmups] for word in batch}
    hits = total = 0
    for batch in batches[num_warmups:]:
        hits += sum(word in seen for word in batch)
        total += len(batch)
        seen.update(batch)
    return hits / total

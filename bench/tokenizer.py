"""Tokenizing captions: ours against open_clip's SimpleTokenizer. Every pair brings captions that neither has seen."""

import torch

from bench.captions import captions
from bench.pairs import Row, speed
from eyesmith.models.timm.torchvision import ensure_torchvision
from eyesmith.tokenizer import ClipTokenizer

BATCH = 2000
SEED = 1_000


def rows() -> list[Row]:
    """Fresh captions after two batches of warm-up, fresh web captions, and the first captions of a new process."""
    ensure_torchvision()
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    vocabulary = ClipTokenizer.load().vocabulary

    def row(name: str, note: str, *, web: bool = False, forgets: bool = False) -> Row:
        ours, theirs = ClipTokenizer(vocabulary), SimpleTokenizer()
        at_first = dict(theirs.cache)

        def fresh(i: int) -> list[str]:
            if forgets:
                ours.forget()
                theirs.cache = dict(at_first)
            return captions(BATCH, SEED + i, web=web)

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

    known = f"{known_frac():.1%} of the words of a batch stood in one of the batches before"
    return [
        row("tokenizer_captions", f"{BATCH} captions of 5 to 25 words, new in every pair; {known}"),
        row("tokenizer_web", "the same, a tenth with curly quotes, accents, entities or emoji", web=True),
        row(
            "tokenizer_first_batch",
            f"the first {BATCH} captions: both sides start with nothing remembered",
            forgets=True,
        ),
    ]


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

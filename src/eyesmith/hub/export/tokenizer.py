"""CLIP's tokenizer as one `tokenizer.json`, which the `tokenizers` library reads from Python, JavaScript and Rust."""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors

from eyesmith.files import write_atomic
from eyesmith.models.text.model import ClipText
from eyesmith.tokenizer import ClipTokenizer, PieceTokenizer

TOKENIZER_FILE = "tokenizer.json"
START, END = "<start_of_text>", "<end_of_text>"
_OTHER = r"[^\s\p{L}\p{N}\x{345}]"  # U+0345 is a letter in capitals alone: it falls out of the pieces, here as there
_PIECES = rf"'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|{_OTHER}+"
CLEANING = (
    "tokenizer.json straightens quotes, takes ligatures and full-width forms apart, drops control characters, and "
    "makes lower case and single spaces of a text. The model was trained on texts whose HTML entities were "
    "resolved and whose broken encodings and lone surrogates were mended (ftfy) before; do so yourself where your "
    "texts need it. Characters that are newer than the library's Unicode may be cut or ordered otherwise."
)
# what str.split takes for white space, but for the controls that are dropped before
_SPACES = r"[\t\n\x0c\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
# Unicode's rule for a sigma at the end of a word, which the library's lower case does not have
_FINAL_SIGMA = r"(?!\p{Case_Ignorable})\p{Cased}\p{Case_Ignorable}*\K\u03a3(?!(?>\p{Case_Ignorable}*)\p{Cased})"


def save_tokenizer(text: object, folder: Path) -> str:
    """Write what turns texts into the ids of this tower to `folder`; returns the name of the file to load.

    For CLIP's own tokenizer also the list of its merges, as `ClipTokenizer.load` reads it. A Hugging Face tower
    writes its own files, of which `tokenizer.json` is one; a published vocabulary is written as it was published.
    """
    text.save_assets(folder)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = text.tokenizer if isinstance(text, ClipText) else None
    if isinstance(tokenizer, ClipTokenizer):
        write_atomic(folder / TOKENIZER_FILE, clip_tokenizer(tokenizer).to_str(pretty=True) + "\n")
    return tokenizer.FILE if isinstance(tokenizer, PieceTokenizer) else TOKENIZER_FILE


def clip_tokenizer(ours: ClipTokenizer) -> Tokenizer:
    """The same ids from the `tokenizers` library, for text that needs no mending; rows are padded with 0.

    Source of the parts: OpenAI's CLIP (byte pairs over lower-case pieces, the last of a word marked with </w>).
    """
    vocabulary = ours.vocabulary
    made = Tokenizer(vocabulary.model())
    made.add_special_tokens([AddedToken(START, normalized=True), AddedToken(END, normalized=True)])
    made.normalizer = normalizers.Sequence(
        [
            *_replacements(),
            normalizers.NFC(),
            normalizers.Replace(Regex(_FINAL_SIGMA), "\u03c2"),
            normalizers.Replace(Regex(_SPACES), " "),
            normalizers.Strip(),
            normalizers.Lowercase(),
            *_special_tokens(),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ids = {START: vocabulary.start_id, END: vocabulary.end_id}
    assert {name: made.token_to_id(name) for name in ids} == ids
    made.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=list(ids.items()))
    made.enable_truncation(ours.context_len)
    made.enable_padding(pad_id=0, pad_token="!")  # id 0; whatever follows the end token changes nothing
    return made


def _special_tokens() -> list[normalizers.Normalizer]:
    """The names of the special tokens, only where a piece begins as here, become control characters of their own.

    No text has those by then, and the library looks for a token by its name as these rules leave it.
    """
    begins = rf"(?:(?<!{_OTHER[:-1]}\x01])|\G)"
    return [
        normalizers.Replace(Regex(f"{begins}(?:{END})*\\K{START}"), "\x01"),
        normalizers.Replace(Regex(f"{begins}{END}"), "\x02"),
    ]


def _replacements() -> list[normalizers.Normalizer]:
    """ftfy's replacements of single characters: one rule for each text that they become."""
    from ftfy import chardata, fixes

    becomes: dict[str, list[str]] = {}
    for table in (chardata.LIGATURES, chardata.WIDTH_MAP, chardata.CONTROL_CHARS):
        for code, text in table.items():
            becomes.setdefault(text or "", []).append(f"\\x{{{code:x}}}")
    rules = [(fixes.ANSI_RE.pattern, "")]
    rules += [(f"[{''.join(codes)}]", text) for text, codes in sorted(becomes.items())]
    rules += [(chardata.SINGLE_QUOTE_RE.pattern, "'"), (chardata.DOUBLE_QUOTE_RE.pattern, '"')]  # a ligature holds one
    return [normalizers.Replace(Regex(pattern), text) for pattern, text in rules]

"""CLIP's tokenizer as one `tokenizer.json`, which the `tokenizers` library reads from Python, JavaScript and Rust."""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors

from eyesmith.files import write_atomic
from eyesmith.models.text.model import ClipText
from eyesmith.tokenizer import ClipTokenizer

TOKENIZER_FILE = "tokenizer.json"
START, END = "<start_of_text>", "<end_of_text>"
_PIECES = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
CLEANING = (
    "tokenizer.json makes lower case and single spaces of a text. The model was trained on texts whose HTML entities "
    "were resolved and whose broken encodings were mended (ftfy) before; do so yourself where your texts need it."
)


def save_tokenizer(text: object, folder: Path) -> str:
    """Write what turns texts into the ids of this tower to `folder`; returns the name of the file to load.

    For CLIP's own tokenizer also the list of its merges, as `ClipTokenizer.load` reads it. A Hugging Face tower
    writes its own files, of which `tokenizer.json` is one.
    """
    text.save_assets(folder)  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(text, ClipText):
        write_atomic(folder / TOKENIZER_FILE, clip_tokenizer(text.tokenizer).to_str(pretty=True) + "\n")
    return TOKENIZER_FILE


def clip_tokenizer(ours: ClipTokenizer) -> Tokenizer:
    """The same ids from the `tokenizers` library, for text that needs no mending; rows are padded with 0.

    Source of the parts: OpenAI's CLIP (byte pairs over lower-case pieces, the last of a word marked with </w>).
    """
    vocabulary = ours.vocabulary
    made = Tokenizer(vocabulary.model())
    made.add_special_tokens([AddedToken(START, normalized=False), AddedToken(END, normalized=False)])
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
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

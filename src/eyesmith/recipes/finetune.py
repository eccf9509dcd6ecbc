"""Fine-tuning a trained model on pairs of one's own, on one GPU."""

from eyesmith.hub.initial import InitialConfig
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.registry import config as model
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import DataConfig, EvalConfig


def finetune() -> TrainConfig:
    """A trained model on your own pairs: small batch, low rates that fall from layer to layer, on one GPU or a CPU."""
    return TrainConfig(
        model=model("ViTamin-S"),
        data=DataConfig(path="pairs.csv", decode_px=256),
        augment=AugmentConfig(scale=(0.8, 1.0)),
        initial=InitialConfig(weights="hf:jienengchen/ViTamin-S"),
        optim=OptimConfig(
            peak_lr=5e-5,
            betas=(0.9, 0.98),
            weight_decay=0.05,
            warmup_frac=0.1,
            text_lr_scale=0.3,
            layer_decay=0.8,
            text_layer_decay=0.8,
            clip_norm=1.0,
        ),
        eval=EvalConfig(every_epochs=1.0),
        batch_size=256,
        epochs=10,
        save_every_steps=200,
    )

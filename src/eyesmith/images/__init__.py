"""Bytes to pixels: decoding, evaluation and training transforms, batched augmentation."""

from eyesmith.images.augment import AugmentConfig as AugmentConfig
from eyesmith.images.augment import augment_batch as augment_batch
from eyesmith.images.collect import collect_images as collect_images
from eyesmith.images.crop import sample_rng as sample_rng
from eyesmith.images.decode import MAX_PIXELS as MAX_PIXELS
from eyesmith.images.decode import ImageSource as ImageSource
from eyesmith.images.decode import image_size as image_size
from eyesmith.images.decode import open_image as open_image
from eyesmith.images.pixels import OPENAI_MEAN as OPENAI_MEAN
from eyesmith.images.pixels import OPENAI_STD as OPENAI_STD
from eyesmith.images.pixels import normalize as normalize
from eyesmith.images.transforms import PreprocessConfig as PreprocessConfig
from eyesmith.images.transforms import TrainTransformConfig as TrainTransformConfig
from eyesmith.images.transforms import evaluation_pixels as evaluation_pixels
from eyesmith.images.transforms import training_pixels as training_pixels

"""Image-text pairs: sources, shards, order, checks."""

from eyesmith.data.memory import DecodedSet as DecodedSet
from eyesmith.data.memory import decode_all as decode_all
from eyesmith.data.memory import decoded_bytes as decoded_bytes
from eyesmith.data.order import BatchPlan as BatchPlan
from eyesmith.data.order import epoch_order as epoch_order
from eyesmith.data.own_source import Samples as Samples
from eyesmith.data.sample import Finding as Finding
from eyesmith.data.sample import Sample as Sample
from eyesmith.data.sample import Source as Source
from eyesmith.data.sources import open_source as open_source
from eyesmith.data.sources import read_templates as read_templates
from eyesmith.data.sources import register_opener as register_opener
from eyesmith.data.sources import split_names as split_names

"""Image-text pairs out of tar shards, at any scale: order, fetching, decoding processes, exact resume."""

from eyesmith.data.stream.identity import differences as differences
from eyesmith.data.stream.opening import Exchange as Exchange
from eyesmith.data.stream.order import DEFAULT_WINDOW as DEFAULT_WINDOW
from eyesmith.data.stream.order import Position as Position
from eyesmith.data.stream.order import StreamPlan as StreamPlan
from eyesmith.data.stream.places import ShardSource as ShardSource
from eyesmith.data.stream.places import default_lanes as default_lanes
from eyesmith.data.stream.places import list_shards as list_shards
from eyesmith.data.stream.probe import Probe as Probe
from eyesmith.data.stream.probe import probe_shards as probe_shards
from eyesmith.data.stream.stream import DEFAULT_CACHE_GIB as DEFAULT_CACHE_GIB
from eyesmith.data.stream.stream import Pairs as Pairs
from eyesmith.data.stream.stream import ShardStream as ShardStream

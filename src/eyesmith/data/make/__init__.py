"""Data sets that are made here: emoji of two icon families, drawn scenes, miniature evaluation sets."""

from eyesmith.data.make.emoji import make_emoji as make_emoji
from eyesmith.data.make.miniature import make_miniatures as make_miniatures
from eyesmith.data.make.scenes import make_scenes as make_scenes

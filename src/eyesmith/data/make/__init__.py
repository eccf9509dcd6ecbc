"""Data sets that are made here: emoji drawings, scenes of them and of shapes, miniature evaluation sets."""

from eyesmith.data.make.emoji import make_emoji as make_emoji
from eyesmith.data.make.emoji_scenes import make_emoji_scenes as make_emoji_scenes
from eyesmith.data.make.miniature import make_miniatures as make_miniatures
from eyesmith.data.make.scenes import make_scenes as make_scenes

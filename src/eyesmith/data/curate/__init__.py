"""Curation: which samples of a pool are worth training on, and the shards made of them."""

from eyesmith.data.curate.made_pool import make_pool as make_pool
from eyesmith.data.curate.marks import mark_evaluation as mark_evaluation
from eyesmith.data.curate.marks import mark_shards as mark_shards
from eyesmith.data.curate.marks import write_marks as write_marks
from eyesmith.data.curate.plan import PLAN_NAMES as PLAN_NAMES
from eyesmith.data.curate.plan import CurationPlan as CurationPlan
from eyesmith.data.curate.plan import named_plan as named_plan
from eyesmith.data.curate.run import CurationReport as CurationReport
from eyesmith.data.curate.run import curate as curate
from eyesmith.data.curate.substrings import SubstringMatcher as SubstringMatcher
from eyesmith.data.curate.uids import read_subset as read_subset
from eyesmith.data.curate.uids import write_subset as write_subset

"""Evaluation sets on disk: opened, checked and fetched."""

from eyesmith.data.evaluation.evaluation_set import EvaluationSet as EvaluationSet
from eyesmith.data.evaluation.evaluation_set import Instance as Instance
from eyesmith.data.evaluation.evaluation_set import Objective as Objective
from eyesmith.data.evaluation.names import babel_imagenet as babel_imagenet
from eyesmith.data.evaluation.names import class_names as class_names
from eyesmith.data.evaluation.names import templates_for as templates_for
from eyesmith.data.evaluation.opening import open_evaluation_set as open_evaluation_set
from eyesmith.data.evaluation.own import labelled_set as labelled_set

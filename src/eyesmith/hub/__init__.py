from eyesmith.hub.fingerprint import fingerprint
from eyesmith.hub.load import load, load_clip, load_encoder
from eyesmith.hub.run_folder import is_run_folder, load_model, read_config, save_model
from eyesmith.hub.verification import VerifyReport, verify
from eyesmith.hub.weights import load_tensors, read_tensors

__all__ = [
    "VerifyReport",
    "fingerprint",
    "is_run_folder",
    "load",
    "load_clip",
    "load_encoder",
    "load_model",
    "load_tensors",
    "read_config",
    "read_tensors",
    "save_model",
    "verify",
]

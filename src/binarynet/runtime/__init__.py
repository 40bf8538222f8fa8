"""Running packed networks: sessions over the native core, models, verification. Works without torch."""

from binarynet.runtime.engines import REFERENCE, Engine, check_engine, engines
from binarynet.runtime.model import Model, Prediction, load
from binarynet.runtime.plan import MethodRange, Plan, Step, StepTime, method_ranges
from binarynet.runtime.session import Session
from binarynet.runtime.verification import Difference, Source, ValueCheck, Verification, verify

__all__ = [
    "REFERENCE",
    "Difference",
    "Engine",
    "MethodRange",
    "Model",
    "Plan",
    "Prediction",
    "Session",
    "Source",
    "Step",
    "StepTime",
    "ValueCheck",
    "Verification",
    "check_engine",
    "engines",
    "load",
    "method_ranges",
    "verify",
]

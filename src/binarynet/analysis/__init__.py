"""What a packed network holds and costs: bytes, operations, memory, energy, filter repetition, time. Torch-free."""

from binarynet.analysis.account import Account, LayerAccount, account
from binarynet.analysis.energy import ASSUMPTIONS, Energy, EnergyEstimate, estimate_energy
from binarynet.analysis.layers import ActivationMemory, Layer, activation_memory, layers
from binarynet.analysis.networks import random_convnet, random_mlp
from binarynet.analysis.repetition import FilterRepetition, filter_repetition
from binarynet.analysis.timing import Party, Spread, Timing, fair_clock, time_interleaved

__all__ = [
    "ASSUMPTIONS",
    "Account",
    "ActivationMemory",
    "Energy",
    "EnergyEstimate",
    "FilterRepetition",
    "Layer",
    "LayerAccount",
    "Party",
    "Spread",
    "Timing",
    "account",
    "activation_memory",
    "estimate_energy",
    "fair_clock",
    "filter_repetition",
    "layers",
    "random_convnet",
    "random_mlp",
    "time_interleaved",
]

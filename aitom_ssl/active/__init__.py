"""Which samples to label next: strategies by name, pools, oracles and the loop around them. NAMES loads no Keras."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from aitom_ssl.errors import InputError, near
from aitom_ssl.on_demand import on_demand

if TYPE_CHECKING:
    from aitom_ssl.active.strategy import Strategy

# Name to module, class, and the options that make it what its name says.
_STRATEGIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "random": ("random_choice", "RandomChoice", {}),
    "ema": ("mean_teacher", "EMA", {}),
    "entropy": ("uncertainty", "Entropy", {}),
    "margin": ("uncertainty", "Margin", {}),
    "mc_dropout": ("mc_dropout", "MCDropout", {}),
    "bald": ("mc_dropout", "MCDropout", {"score": "bald"}),
    "core_set": ("core_set", "CoreSet", {}),
    "vaal": ("vaal", "VAAL", {}),
    "ll4al": ("ll4al", "LL4AL", {}),
    "hal": ("hal", "HAL", {}),
}
NAMES = tuple(_STRATEGIES)


def get(name: str, **options: Any) -> Strategy:
    """The strategy of that name with these options (see its class). InputError on a name or option it has not."""
    if name not in _STRATEGIES:
        raise InputError(f"No strategy {name!r}; there are: {', '.join(NAMES)}.{near(name, NAMES)}")
    module, class_, fixed = _STRATEGIES[name]
    strategy = getattr(importlib.import_module(f"aitom_ssl.active.{module}"), class_)
    known = [option for option in inspect.signature(strategy).parameters if option not in fixed]
    for option in options:
        if option not in known:
            raise InputError(
                f"The strategy {name} has no option {option!r}; it has: {', '.join(known) or 'none'}."
                f"{near(option, known)}"
            )
    return strategy(**fixed, **options)


__all__ = ["NAMES", "MeanTeacher", "get"]
__getattr__, __dir__ = on_demand(__name__, {"MeanTeacher": "mean_teacher"})

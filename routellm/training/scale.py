"""How features are brought to a common scale before a model is fitted to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from routellm.embeddings.base import Vector
from routellm.routers.parts import standardise
from routellm.routers.views import View

LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class Scale:
    """Means and spreads of the features of form, each float32 of shape (n_form,)."""

    mean: Vector
    spread: Vector

    @classmethod
    def of(cls, form: Vector) -> Scale:
        """Those of the rows, shape (n, n_form); a feature that never varies keeps its unit."""
        spread = form.std(axis=0)
        return cls(form.mean(axis=0), np.where(spread < LEAST_SPREAD, 1.0, spread).astype(np.float32))

    def standardised(self, view: View) -> View:
        """The same prompts with standardised features of form, as everything below takes them."""
        return replace(view, form=standardise(view.form, self.mean, self.spread))


def length(rows: Vector) -> float:
    """The root mean square length of centred rows."""
    return max(float(np.sqrt(np.sum(rows.var(axis=0)))), LEAST_SPREAD)

"""People as the judge: a store of comparisons, a local page to answer them, and what came of it.

No torch here. `equilign.oracles.Human` asks people through the store; `equilign label` opens the
page.
"""

from equilign.labelling.store import LabelStore

__all__ = ["LabelStore"]

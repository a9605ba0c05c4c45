"""
A page a person can look at
===========================

What does a detector look at, where does it err, and what do units stand for? One page answers, and
the same heat maps can be drawn into a figure.

The guide: :doc:`/user_guide/report`.
"""

# %%
# A detector of the colours and shapes of solids, fitted from masks.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline

import skact

shapes = skact.make_shapes(120, random_state=0)
train, test = slice(0, 80), slice(80, 120)
detector = skact.ConceptDetector(skact.shapes_model_path(), layer=[0.5, 1.0], cv=3, random_state=0)
detector.fit(shapes.data[train], masks=shapes.masks[train])

# %%
# The page holds everything, with a filter by concept and outcome; it needs no network.
folder = Path(tempfile.mkdtemp())
page = folder / "report.html"
skact.report(detector, shapes.data[test], page, shapes.target[test], title="Coloured solids")
print(f"{page.stat().st_size / 1024:.0f} KiB: open it in a browser")

# %%
# Six samples on one scale. The image keeps its colours where little speaks for the concept, and
# patches that reach the threshold by themselves are framed.
skact.PatchHeatMapDisplay.from_estimator(detector, shapes.data[test][:6], concept=0)
plt.show()

# %%
# Units found without labels have a page of the same form. Their strongest patches as a data frame:
embedder = skact.TransformerEmbedder(skact.shapes_model_path(), layer=0.5)
units = make_pipeline(embedder, skact.TokenScaler(), skact.KMeansConcepts(8, random_state=0))
units.fit(shapes.data[train])
skact.unit_pages(units, shapes.data[test], folder / "units.html", n_examples=4)
table = skact.top_activations(units, shapes.data[test], n_top=3, per_sample=True)
print(table.groupby("unit")["score"].max().round(2).to_dict())
